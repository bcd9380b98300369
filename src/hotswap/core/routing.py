"""One model's route table, and the choice of a version for a request. Pure.

Every number a request is routed by is in one immutable `RouteTable`; its ``revision`` is what
the epoch word of the model holds.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, Literal

import msgspec

from hotswap.core.signature import Signature

#: Weights are whole numbers of this: 10,000 is every request, 1 is one in ten thousand.
WHOLE: Final = 10_000

Assigned = Literal["baseline", "twin", "candidate"]


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


class Split(msgspec.Struct, frozen=True):
    """How a model's unpinned requests are divided during a rollout.

    ``test`` names the rollout's attempt, ``stage`` its stretch of constant probability: what is
    counted under different stages is never pooled. ``weight`` (of `WHOLE`) of the requests are
    assigned to ``candidate``, and answered by ``baseline`` within the caller's deadline if its
    first attempt fails. ``twin`` are second hosts of the baseline: they get ``twin_weight``, the
    candidate's own share, so that latency is compared like with like. ``mirror`` (of `WHOLE`) of
    the answers of the baseline are asked of the candidate too, off the path; with ``pair`` every
    request is asked of both, and ``weight`` says which answers.

    With ``pair`` the twins, if there are any, are asked in the baseline's place.

    ``budget_ms``: what takes longer has failed, on either arm. ``reserve_ms``: kept back of a
    request's time, for the baseline to answer in. ``key_input``: the input whose value is the
    key of a request that names none. During the bake the candidate is the table's stable version
    and has all the weight; the baseline is the version before it, still warm.
    """

    test: str
    stage: int
    candidate: str
    baseline: str
    weight: int
    salt: str
    budget_ms: float
    reserve_ms: float = 10.0
    twin: tuple[HostRef, ...] = ()
    twin_weight: int = 0
    mirror: int = 0
    pair: bool = False
    key_input: str | None = None


class RouteTable(msgspec.Struct, frozen=True):
    """One model's immutable, numbered snapshot.

    ``index`` is the model's word in the epoch memory. ``stable`` answers unpinned requests; it
    is None for a model that was registered but never activated. ``versions`` are all that are
    registered, in natural order. ``split``: how requests are divided while a rollout runs.
    """

    model: str
    index: int
    revision: int
    stable: str | None
    signature: Signature | None
    versions: tuple[VersionEntry, ...]
    split: Split | None = None

    def hosts(self) -> set[str]:
        """Every host that it leads to, twins included."""
        named = {ref.host for entry in self.versions for ref in entry.hosts}
        return named if self.split is None else named | {ref.host for ref in self.split.twin}

    def version(self, name: str) -> VersionEntry | None:
        """The entry of that version, or None."""
        return next((entry for entry in self.versions if entry.version == name), None)


def choose(table: RouteTable) -> VersionEntry | None:
    """The stable version, which answers unless a split says otherwise; None if none is active."""
    return table.version(table.stable) if table.stable is not None else None


def hashed(salt: str, key: bytes) -> int:
    """The unit of a key under a rollout's salt: 64 bits, the same on every worker and node.

    >>> hashed("s", b"user-1") == hashed("s", b"user-1") != hashed("t", b"user-1")
    True
    """
    return int.from_bytes(blake2b(salt.encode() + b"\0" + key, digest_size=8).digest(), "big")


def place(unit: int) -> int:
    """Where a 64-bit unit or coin lies among `WHOLE` equal parts.

    >>> place(0), place((1 << 64) - 1)
    (0, 9999)
    """
    return unit * WHOLE >> 64


def assign(split: Split, at: int) -> Assigned:
    """The arm of a request whose key or coin lies at ``at``.

    The candidate takes from the low end and the twin from the high end, so raising a weight
    only ever moves keys from the baseline to the candidate.

    >>> split = Split("t", 1, "v2", "v1", weight=500, salt="", budget_ms=100, twin_weight=500)
    >>> assign(split, 499), assign(split, 500), assign(split, 9500)
    ('candidate', 'baseline', 'twin')
    """
    if at < split.weight:
        return "candidate"
    return "twin" if at >= WHOLE - split.twin_weight else "baseline"
