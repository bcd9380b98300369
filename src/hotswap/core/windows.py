"""What a worker counts of a rollout in one arrival window, and reports once. Values only.

A window is 200 milliseconds of the machine's monotonic clock. A request belongs to the window in
which it arrived, whenever it ends; a window is reported when each of its requests is terminal or
past the budget, on a timer, so that what is counted never depends on an outcome.
"""

from __future__ import annotations

from typing import Final

import msgspec

WINDOW_NS: Final = 200_000_000

#: Kinds of `UnitEvent`.
FIRST: Final = 0
ERROR: Final = 1
INVALID: Final = 2
#: Arms in `UnitEvent`.
ARMS: Final = ("baseline", "twin", "candidate")


class ArmCounts(msgspec.Struct, array_like=True):
    """One arm of one window. ``requests`` are first attempts *assigned* to it without a key.

    ``errors`` raised or were lost, ``timeouts`` took longer than the budget, ``invalid`` gave no
    valid answer. ``latency`` counts answered attempts and timeouts by `hotswap.stats.buckets`, of
    one request in 50 milliseconds; ``values`` the first output's first number by `hotswap.stats.values`.
    """

    requests: int = 0
    errors: int = 0
    timeouts: int = 0
    invalid: int = 0
    latency: dict[int, int] = {}
    values: dict[int, int] = {}


class UnitEvent(msgspec.Struct, frozen=True, array_like=True):
    """A keyed unit's first request (FIRST), first error or timeout (ERROR) or first invalid
    output (INVALID) in one worker. The first over all workers counts.

    ``arm`` indexes `ARMS`. ``latency`` and ``value`` are buckets, -1 for none; of FIRST alone.
    """

    unit: int
    arm: int
    kind: int
    latency: int = -1
    value: int = -1


class PairCounts(msgspec.Struct, array_like=True):
    """Requests that both versions saw. ``total`` = both + ``worse`` + ``better`` + ``neither``.

    ``both`` gave valid answers, of which ``agree`` were the same (labels equal, numbers within
    1e-6 relative); ``worse``: only the candidate failed; ``better``: only the baseline did.
    ``difference`` is the sum of absolute numeric differences, ``largest`` the greatest;
    ``confusion`` counts "baseline|candidate" labels, at most 400 different ones. ``latency`` counts
    how long the candidate took for copies that it answered, or did not in time, by
    `hotswap.stats.buckets`: to be held against a limit, never to be compared.
    """

    total: int = 0
    both: int = 0
    agree: int = 0
    worse: int = 0
    better: int = 0
    neither: int = 0
    difference: float = 0.0
    largest: float = 0.0
    confusion: dict[str, int] = {}
    latency: dict[int, int] = {}


class Window(msgspec.Struct):
    """One worker's report of one window under one stage of one test.

    ``worker`` is the worker's incarnation, ``number`` the window (monotonic ns // `WINDOW_NS`).
    ``arms`` by name; ``units`` of keyed traffic. ``fallbacks`` by reason: requests that the
    baseline answered for the candidate. ``excluded``: too little time for a coin. ``mirrored``
    and ``dropped``: copies that were sent and that were not, for lack of room. ``plain``: requests
    and failures of any kind by arm in the order of `ARMS`, keyed or not: of no use to a test, but
    a limit on what users get is a limit on all of it.
    """

    test: str
    stage: int
    worker: str
    number: int
    weight: int
    twin_weight: int
    arms: dict[str, ArmCounts] = {}
    units: list[UnitEvent] = []
    pairs: PairCounts | None = None
    fallbacks: dict[str, int] = {}
    excluded: int = 0
    mirrored: int = 0
    dropped: int = 0
    plain: list[int] = []
