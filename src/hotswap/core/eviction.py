"""Which loaded versions have to go to make room. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec


class Resident(msgspec.Struct, frozen=True):
    """One loaded version. ``last_used`` and ``now`` are on one clock, in seconds.

    ``held``: it has weight or is the rollback target, and is never evicted.
    """

    model: str
    version: str
    memory_bytes: int
    last_used: float
    held: bool


def victims(
    residents: Sequence[Resident], budget: int, needed: int, now: float, rest_seconds: float = 60.0
) -> list[Resident] | None:
    """The least recently used versions whose going leaves ``needed`` bytes of the budget free.

    Nothing that is held or was used within ``rest_seconds`` goes. None if that does not suffice.

    >>> old = Resident("m", "v1", 60, 0.0, False)
    >>> victims([old], budget=100, needed=50, now=100.0) == [old]
    True
    >>> victims([old], budget=100, needed=50, now=30.0) is None
    True
    """
    free = budget - sum(resident.memory_bytes for resident in residents)
    gone: list[Resident] = []
    for resident in _candidates(residents, now - rest_seconds):
        if free >= needed:
            break
        gone.append(resident)
        free += resident.memory_bytes
    return gone if free >= needed else None


def surplus(
    residents: Sequence[Resident], budget: int, now: float, rest_seconds: float = 60.0
) -> list[Resident]:
    """The least recently used versions whose going brings the others within the budget.

    By the rule of `victims`, but all that may go if that does not suffice.

    >>> old, fresh = Resident("m", "v1", 60, 0.0, False), Resident("m", "v2", 60, 90.0, False)
    >>> surplus([old, fresh], budget=50, now=100.0) == [old]
    True
    """
    over = sum(resident.memory_bytes for resident in residents) - budget
    gone: list[Resident] = []
    for resident in _candidates(residents, now - rest_seconds):
        if over <= 0:
            break
        gone.append(resident)
        over -= resident.memory_bytes
    return gone


def _candidates(residents: Iterable[Resident], before: float) -> list[Resident]:
    idle = [each for each in residents if not each.held and each.last_used <= before]
    return sorted(idle, key=lambda each: (each.last_used, each.model, each.version))
