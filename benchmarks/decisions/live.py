"""`python -m benchmarks.decisions.live [--quick] [--only NAME,…]`: rollouts on running servers.

Needs an otherwise idle machine; the tables go to the terminal and to docs/decisions.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from typing import Any, Final

from rich.console import Console

from benchmarks import artifacts, machine
from benchmarks.decisions import live_arms, live_load, live_request, page
from benchmarks.decisions.live_tables import markdown_of
from benchmarks.options import Options
from benchmarks.paths import RESULTS, make_folders

GROUPS: Final[dict[str, Callable[[Options], dict[str, Any]]]] = {
    "request": live_request.measure,
    "broken": live_load.out,
    "tails": live_load.tails,
    "arms": live_arms.measure,
}


def main(given: list[str] | None = None) -> int:
    """Measure, show, keep the result, write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decisions.live", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="two of everything, no page")
    parser.add_argument("--only", default="", help=f"groups, by commas: {', '.join(GROUPS)}")
    args = parser.parse_args(given)
    chosen = [name.strip() for name in args.only.split(",") if name.strip()] or list(GROUPS)
    unknown = [name for name in chosen if name not in GROUPS]
    if unknown:
        raise SystemExit(f"there is no group {unknown[0]!r}; there are: {', '.join(GROUPS)}")
    console = Console()
    make_folders()
    artifacts.train()
    options = Options(args.quick, [], False, lambda text: console.print(f"  {text}", markup=False))
    now = datetime.datetime.now(datetime.UTC)
    path = RESULTS / f"decisions-live-{now:%Y-%m-%d-%H%M%S}.json"
    result: dict[str, Any] = {
        "started": f"{now:%Y-%m-%d %H:%M} UTC",
        "quick": args.quick,
        "machine": machine.facts(),
        "groups": {},
    }
    for name in chosen:
        console.rule(name)
        result["groups"][name] = GROUPS[name](options)
        path.write_text(json.dumps(result))
    text = markdown_of(result)
    console.print(text, markup=False)
    console.print(f"Raw numbers: {path}")
    if not args.quick and set(chosen) == set(GROUPS):
        page.PAGE.write_text(page.replaced(page.PAGE.read_text(), "live", text))
        console.print(f"Page: {page.PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
