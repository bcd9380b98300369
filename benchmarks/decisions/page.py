"""The page: what stands between `<!-- begin: NAME -->` and `<!-- end: NAME -->` is written anew."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from benchmarks.decisions.tables import TABLES, Table
from benchmarks.paths import ROOT

PAGE: Final = ROOT / "docs" / "decisions.md"
PICTURES: Final = ROOT / "docs" / "_static"


class NoMarker(Exception):
    """A part of the page was asked for that the page has no place for."""


def markdown(table: Table) -> str:
    """A table with its first row as the header.

    >>> print(markdown([["what", "n"], ["a", "1"]]))
    | what | n |
    |---|---|
    | a | 1 |
    """
    lines = [f"| {' | '.join(row)} |" for row in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    return "\n".join(lines)


def replaced(page: str, name: str, text: str) -> str:
    """The page with ``text`` between the markers of that name. Raises `NoMarker`."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    if begin not in page or end not in page:
        raise NoMarker(f"the page has no markers {begin} and {end}: add them where {name} belongs")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", page)


def taken(result: dict[str, Any], *, whole: bool = True) -> str:
    """When and on what, and by which command."""
    machine = result["machine"]
    only = "" if whole else f" ARGS='--only {','.join(result['times'])}'"
    seconds = sum(group["took_seconds"] for group in result["times"].values())
    commits = sorted({group["commit"] for group in result["times"].values()})
    several = (
        f" Groups were measured at different commits: {', '.join(commits)}." if commits[1:] else ""
    )
    return (
        f"Taken {result['started']} on {machine['cores']} cores ({machine['cpu']}), Python "
        f"{machine['python']}, commit {machine['commit']}, by `make bench-decisions{only}` in "
        f"{seconds / 60:.1f} minutes. Every draw is seeded: another run gives the same figures, "
        f"but for what deciding costs.{several}"
    )


def written(page: str, result: dict[str, Any]) -> str:
    """The page with this result's tables; groups that it lacks stay as they were, and what the top
    says of them: then each new table tells when it was taken.
    """
    whole = {group for group, _ in TABLES.values()} <= result["groups"].keys()
    if whole:
        page = replaced(page, "taken", taken(result))
    for name, (group, table) in TABLES.items():
        if group in result["groups"]:
            text = markdown(table(result["groups"]))
            page = replaced(
                page, name, text if whole else f"{text}\n\n{taken(result, whole=False)}"
            )
    return page


def write(result: dict[str, Any], path: Path = PAGE) -> None:
    """Write the page where it is kept."""
    path.write_text(written(path.read_text(), result))
