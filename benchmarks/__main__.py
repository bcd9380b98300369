"""`python -m benchmarks [--quick] [--only NAME,…] [--peers NAME,…] [--into RESULT.json]`."""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks import artifacts, environments, machine, terminal
from benchmarks.catalogue import PEERS
from benchmarks.groups import GROUPS
from benchmarks.openloop import ProtocolError
from benchmarks.options import Options
from benchmarks.ours import Refused
from benchmarks.paths import HERE, RESULTS, make_folders
from benchmarks.processes import ServerFailed
from benchmarks.wrk import WrkMissing

#: Cores that other processes may use before a group is called disturbed.
NOISE = 0.1


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under five minutes, without peers")
    parser.add_argument("--only", default="", help=f"groups, by commas: {', '.join(GROUPS)}")
    parser.add_argument("--peers", default=None, help=f"by commas, or 'none': {', '.join(PEERS)}")
    parser.add_argument(
        "--retune", action="store_true", help="try every setting of the peers again"
    )
    parser.add_argument(
        "--into", type=Path, help="an earlier result whose other groups are kept (same machine)"
    )
    return parser.parse_args()


def names(given: str, known: Any, what: str) -> list[str]:
    """A list by commas; ends the program at a name that is not known."""
    found = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in found if name not in known]
    if unknown:
        raise SystemExit(f"there is no {what} {unknown[0]!r}; there are: {', '.join(known)}")
    return found


def main() -> int:
    """Measure, show, and keep the result; 1 if a group could not be measured."""
    args = arguments()
    # Ended from outside, it still stops the servers that it started.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    console = Console()
    chosen = names(args.only, GROUPS, "group") or list(GROUPS)
    if args.peers is None:
        peers = [] if args.quick else list(PEERS)
    else:
        peers = [] if args.peers == "none" else names(args.peers, PEERS, "peer")
    install_tools(need_nginx="nginx" in peers)
    make_folders()
    artifacts.train()
    options = Options(
        args.quick, peers, args.retune, lambda text: console.print(f"  {text}", markup=False)
    )
    now = datetime.datetime.now(datetime.UTC)
    result: dict[str, Any] = {
        "started": f"{now:%Y-%m-%d %H:%M} UTC",
        "quick": args.quick,
        "command": sys.argv[1:],
        "machine": machine.facts(),
        "groups": {},
    }
    path = RESULTS / f"{now:%Y-%m-%d-%H%M%S}.json"
    if args.into is not None:
        earlier = json.loads(args.into.read_text())
        if earlier["quick"] and not args.quick:
            raise SystemExit(f"{args.into} is a quick run: a full one is not measured into it")
        result["groups"] = earlier["groups"]
    for name in chosen:
        console.rule(f"{name}: {GROUPS[name].__doc__}")
        result["groups"][name] = run_group(name, options, console)
        result["versions"] = machine.versions()
        path.write_text(json.dumps(result, indent=1))  # what is measured survives an interruption
    terminal.show(console, result)
    for name, version in result["versions"].items():
        console.print(f"{name}: {version}", markup=False, highlight=False)
    console.print(f"Raw numbers: {path}")
    draw(console, path)
    return int(any("problem" in seen for seen in result["groups"].values()))


def run_group(name: str, options: Options, console: Console) -> dict[str, Any]:
    """What one group saw, or the problem it had; how long it took, and who else was computing."""
    begin, (busy, ours) = time.monotonic(), machine.processor_seconds()
    try:
        seen = GROUPS[name](options)
    except (ServerFailed, Refused, WrkMissing, ProtocolError, OSError) as problem:
        console.print(f"[red]{name} could not be measured:[/] {escape(str(problem))}")
        seen = {"problem": str(problem)}
    took = time.monotonic() - begin
    busy_after, ours_after = machine.processor_seconds()
    others = max(0.0, (busy_after - busy) - (ours_after - ours)) / took
    if others > NOISE:
        console.print(f"[yellow]Other processes used {others:.2f} cores meanwhile.[/]")
    now = datetime.datetime.now(datetime.UTC)
    return seen | {
        "took_seconds": round(took, 1),
        "others_cores": round(others, 3),
        "measured": f"{now:%Y-%m-%d %H:%M} UTC",
        "commit": machine.facts()["commit"],
    }


def install_tools(*, need_nginx: bool) -> None:
    """wrk (and nginx, for the floor) from the distribution, if they are missing and may be installed."""
    wanted = [("wrk", "wrk")] + ([("nginx", "nginx-light")] if need_nginx else [])
    missing = [package for command, package in wanted if shutil.which(command) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise SystemExit(f"install {' and '.join(missing)} first: they are not here")
    done = subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing])
    if done.returncode:
        raise SystemExit(f"apt-get could not install it: sudo apt-get install {' '.join(missing)}")


def draw(console: Console, path: Any) -> None:
    """The picture, in an environment that has matplotlib."""
    try:
        python = environments.python("tools")
    except environments.NotInstalled as problem:
        console.print(f"no picture: {problem}")
        return
    done = subprocess.run(
        [str(python), str(HERE / "plot.py"), str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        console.print(f"no picture: {done.stderr.strip().splitlines()[-1]}")
    else:
        console.print(f"Picture: {path.with_suffix('.png')}")


if __name__ == "__main__":
    sys.exit(main())
