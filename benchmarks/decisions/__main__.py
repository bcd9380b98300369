"""`python -m benchmarks.decisions [--quick] [--only NAME,…] [--into RESULT.json] [--page]`."""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import environments, machine
from benchmarks.decisions import (
    adaptive,
    alarms,
    broken,
    cost,
    delays,
    examples,
    falsealarms,
    labels,
    lowtraffic,
    margins,
    page,
    sidebyside,
    sticky,
)
from benchmarks.decisions.chunks import Work, working
from benchmarks.decisions.tables import TABLES
from benchmarks.paths import HERE, RESULTS, make_folders

GROUPS: Final[dict[str, Callable[[Work], Any]]] = {
    "cost": cost.measure,
    "falsealarms": falsealarms.measure,
    "margins": margins.measure,
    "delays": delays.measure,
    "labels": labels.measure,
    "broken": broken.measure,
    "sidebyside": sidebyside.measure,
    "lowtraffic": lowtraffic.measure,
    "sticky": sticky.measure,
    "bandit": adaptive.measure,
    "alarms": alarms.measure,
    "examples": examples.measure,
}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decisions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the work, no page")
    parser.add_argument("--only", default="", help=f"groups, by commas: {', '.join(GROUPS)}")
    parser.add_argument("--into", type=Path, help="an earlier result whose other groups are kept")
    parser.add_argument("--page", action="store_true", help="only write the page of --into")
    return parser.parse_args(given)


def measure(chosen: list[str], path: Path, *, quick: bool, console: Console) -> dict[str, Any]:
    """A result of these groups, kept at ``path`` after each."""
    now = datetime.datetime.now(datetime.UTC)
    result: dict[str, Any] = {
        "started": f"{now:%Y-%m-%d %H:%M} UTC",
        "quick": quick,
        "machine": machine.facts(),
        "groups": {},
        "times": {},
    }
    with working(console, quick=quick) as work:
        for name in chosen:
            begin = time.monotonic()
            said = (sys.modules[GROUPS[name].__module__].__doc__ or "").partition("\n")[0]
            console.print(f"{name}: {said}", markup=False)
            result["groups"][name] = GROUPS[name](work)
            result["times"][name] = {
                "took_seconds": round(time.monotonic() - begin, 1),
                "commit": result["machine"]["commit"],
            }
            path.write_text(json.dumps(result))  # what is measured survives an interruption
    return result


def show(console: Console, groups: dict[str, Any]) -> None:
    """Every table on the terminal, the promises last."""
    for name, (group, rows) in [*list(TABLES.items())[1:], ("targets", TABLES["targets"])]:
        if group not in groups and name != "targets":
            continue
        header, *lines = rows(groups)
        table = Table(title=name)
        for column in header:
            table.add_column(column, overflow="fold")
        for line in lines:
            table.add_row(*line)
        console.print(table)


def draw(console: Console, path: Path) -> None:
    """The pictures of the page, in the environment that has matplotlib."""
    try:
        python = environments.python("tools")
    except environments.NotInstalled as problem:
        console.print(f"no pictures: {problem}")
        return
    script = HERE / "decisions" / "plots.py"
    done = subprocess.run(
        [str(python), str(script), str(path), str(page.PICTURES)], capture_output=True, text=True
    )
    if done.returncode:
        console.print(f"no pictures: {done.stderr.strip().splitlines()[-1]}", markup=False)
    else:
        console.print(done.stdout.strip(), markup=False)


def main(given: list[str] | None = None) -> int:
    """Measure, show, keep the result, write the page."""
    args = arguments(given)
    console = Console()
    chosen = [name.strip() for name in args.only.split(",") if name.strip()] or list(GROUPS)
    unknown = [name for name in chosen if name not in GROUPS]
    if unknown:
        raise SystemExit(f"there is no group {unknown[0]!r}; there are: {', '.join(GROUPS)}")
    make_folders()
    earlier: dict[str, Any] = json.loads(args.into.read_text()) if args.into is not None else {}
    if earlier and earlier["quick"] and not args.quick:
        raise SystemExit(f"{args.into} is a quick run: a full one is not measured into it")
    if args.page and not earlier:
        raise SystemExit("--page writes the page of an earlier result: name it with --into")
    path = RESULTS / f"decisions-{datetime.datetime.now(datetime.UTC):%Y-%m-%d-%H%M%S}.json"
    if args.page:
        result = earlier
    else:
        result = measure(chosen, path, quick=args.quick, console=console)
        result["groups"] = earlier.get("groups", {}) | result["groups"]
        result["times"] = earlier.get("times", {}) | result["times"]
    path.write_text(json.dumps(result))
    show(console, result["groups"])
    console.print(f"Raw numbers: {path}")
    if not result["quick"]:
        page.write(result)
        draw(console, path)
        console.print(f"Page: {page.PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
