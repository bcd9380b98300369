"""One model's route table, and the choice of a version for a request. Pure.

Every number a request is routed by is in one immutable `RouteTable`; its ``revision`` is what
the epoch word of the model holds.
"""

from __future__ import annotations

import msgspec

from hotswap.core.signature import Signature


class HostRef(msgspec.Struct, frozen=True, array_like=True):
    """Where one warm instance listens. ``slot`` is its word in the host health memory."""

    host: str
    address: str
    slot: int


class VersionEntry(msgspec.Struct, frozen=True):
    """One version of the model as workers see it.

    ``state`` is one of the repository extension's: READY, LOADING, UNAVAILABLE. ``hosts`` is
    empty unless READY. ``reason`` says why it is not ready, in a sentence.
    """

    version: str
    platform: str
    state: str = "UNAVAILABLE"
    reason: str = ""
    hosts: tuple[HostRef, ...] = ()
    finite: bool = False
    pure: bool = True
    batch_rows: int = 1024
    digest: str = ""
    runtime: str = ""


class RouteTable(msgspec.Struct, frozen=True):
    """One model's immutable, numbered snapshot.

    ``index`` is the model's word in the epoch memory. ``stable`` answers unpinned requests; it
    is None for a model that was registered but never activated. ``versions`` are all that are
    registered, in natural order.
    """

    model: str
    index: int
    revision: int
    stable: str | None
    signature: Signature | None
    versions: tuple[VersionEntry, ...]

    def version(self, name: str) -> VersionEntry | None:
        """The entry of that version, or None."""
        return next((entry for entry in self.versions if entry.version == name), None)


def choose(table: RouteTable) -> VersionEntry | None:
    """The version that answers an unpinned request, or None if none is active."""
    return table.version(table.stable) if table.stable is not None else None
