"""One installed route table in a worker: its links, its leases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hotswap.core.routing import RouteTable, VersionEntry, choose
from hotswap.ipc.tally import Block
from hotswap.serving.attempt import TWIN
from hotswap.serving.link import HostLink

if TYPE_CHECKING:
    from hotswap.serving.division import Division


class Arm:
    """One version of one installed table, with what a request needs at hand."""

    __slots__ = ("entry", "links", "pinned", "stable")

    def __init__(self, entry: VersionEntry, links: list[HostLink]) -> None:
        self.entry = entry
        self.links = links
        self.stable: Block | None = None
        self.pinned: Block | None = None

    def is_up(self) -> bool:
        """Whether a process of it answers now."""
        return any(link.connected.is_set() for link in self.links)

    def pick(self) -> HostLink | None:
        """The link with the fewest outstanding rows; one that is up before one that is not."""
        links = self.links
        if len(links) == 1:
            return links[0]
        best: HostLink | None = None
        for link in links:
            if best is None:
                best = link
            elif link.connected.is_set() != best.connected.is_set():
                if link.connected.is_set():
                    best = link
            elif link.outstanding_rows < best.outstanding_rows:
                best = link
        return best


class Route:
    """One table as this worker holds it. It drains until its last lease is released."""

    __slots__ = ("arms", "choice", "division", "leases", "table")

    def __init__(
        self, table: RouteTable, arms: dict[str, Arm], division: Division | None = None
    ) -> None:
        self.table = table
        self.division = division
        self.arms = arms
        self.leases = 0
        chosen = choose(table)
        self.choice: Arm | None = arms.get(chosen.version) if chosen is not None else None

    def links(self) -> Iterator[HostLink]:
        """The links to every host that the table names, the twin's too."""
        for arm in self.arms.values():
            yield from arm.links
        if self.division is not None:
            yield from self.division.arms[TWIN].links
