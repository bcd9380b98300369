"""What is known of a rollout's attempt: mergeable counters, kept apart by stage. Pure.

A stage is a stretch of constant probability. Windows are folded in as they come, in any order;
nothing is pooled across stages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from hotswap.core.label_evidence import Labels
from hotswap.core.routing import WHOLE
from hotswap.core.windows import ARMS, ERROR, FIRST, ArmCounts, PairCounts, Window

Counts = Mapping[int, int]

#: So many latencies, of both arms together, are used up to fix where latency is compared.
REFERENCE: Final = 100
#: Seconds of a recent bucket, and how many are kept: what tripwires look at.
RECENT_SECONDS: Final = 5.0
RECENT_BUCKETS: Final = 12
_UNIT: Final = 1 << 20


class Arm(msgspec.Struct, frozen=True, array_like=True):
    """One arm in one stage: requests (units where keyed) and what became of them."""

    requests: int = 0
    errors: int = 0
    timeouts: int = 0
    invalid: int = 0
    latency: dict[int, int] = {}
    values: dict[int, int] = {}

    @property
    def failed(self) -> int:
        """Errors and timeouts."""
        return self.errors + self.timeouts

    def plus(self, other: Arm | ArmCounts) -> Arm:
        """Both together."""
        return Arm(
            self.requests + other.requests,
            self.errors + other.errors,
            self.timeouts + other.timeouts,
            self.invalid + other.invalid,
            added(self.latency, other.latency),
            added(self.values, other.values),
        )


class Stage(msgspec.Struct, frozen=True):
    """One stretch of constant probability. ``weight`` and ``twin_weight`` of `WHOLE`.

    ``pair``: both arms saw every request. ``mirror``: the share (of `WHOLE`) of copies. ``pairs``:
    of copies and pairs. ``warm_from``: the first window whose latency counts.
    """

    number: int
    weight: int
    twin_weight: int = 0
    pair: bool = False
    mirror: int = 0
    warm_from: int = 0
    baseline: Arm = Arm()
    twin: Arm = Arm()
    candidate: Arm = Arm()
    pairs: PairCounts = msgspec.field(default_factory=PairCounts)
    mirrored: int = 0
    dropped: int = 0
    excluded: int = 0
    fallbacks: dict[str, int] = {}

    @property
    def rho(self) -> float:
        """The probability of the candidate."""
        return self.weight / WHOLE

    @property
    def stable(self) -> Arm:
        """The stable version's requests, on whichever hosts."""
        return self.baseline.plus(self.twin) if self.twin.requests else self.baseline

    def stable_count(self, count: Callable[[Arm], int]) -> int:
        """A number of the stable version's, on whichever hosts; without adding up the rest."""
        return count(self.baseline) + count(self.twin)

    @property
    def compared(self) -> tuple[float, Arm] | None:
        """With whom latency is compared: the candidate's probability among the two, and the arm.

        None where the hosts are not equally loaded: without a twin, but for one half.
        """
        if not 0 < self.weight < WHOLE:
            return None
        if self.twin_weight:
            return self.weight / (self.weight + self.twin_weight), self.twin
        if self.pair or self.weight * 2 == WHOLE:
            return self.rho, self.baseline
        return None


class Recent(msgspec.Struct, frozen=True, array_like=True):
    """A few seconds' totals: candidate's and stable's requests and failures of any kind."""

    at: int
    candidate: int = 0
    candidate_failed: int = 0
    stable: int = 0
    stable_failed: int = 0


class Reference(msgspec.Struct, frozen=True):
    """The frozen latency histogram by which latency is compared from then on (`stats.latency`)."""

    counts: dict[int, int]


class Evidence(msgspec.Struct, frozen=True, weakref=True):
    """All of an attempt's evidence. ``error_mean`` and ``invalid_mean``: stable's rates as they
    were before, frozen. ``reference``: None until enough answers were seen.
    ``sequence``: up to which of the supervisor's reports (of its run ``run``) it has counted.
    ``reports``: how many windows. ``labels``: what labels said.
    """

    stages: tuple[Stage, ...] = ()
    error_mean: float = 0.01
    invalid_mean: float = 0.001
    reference: Reference | None = None
    recent: tuple[Recent, ...] = ()
    run: str = ""
    sequence: int = 0
    reports: int = 0
    labels: Labels = Labels()

    def stage(self, number: int) -> Stage | None:
        """The stage of that number, or None."""
        return next((each for each in self.stages if each.number == number), None)


def added(one: Counts, other: Counts) -> dict[int, int]:
    """Two histograms together.

    >>> added({1: 2}, {1: 1, 3: 4})
    {1: 3, 3: 4}
    """
    if not other:
        return dict(one)
    total = dict(one)
    for key, count in other.items():
        total[key] = total.get(key, 0) + count
    return total


def opened(evidence: Evidence, stage: Stage) -> Evidence:
    """With a new, empty stage; as it was if it is there."""
    if evidence.stage(stage.number) is not None:
        return evidence
    return msgspec.structs.replace(evidence, stages=(*evidence.stages, stage))


def folded(evidence: Evidence, windows: Collection[Window]) -> Evidence:
    """With what workers counted. Unit events must be the first of their unit and kind in this
    attempt (`hotswap.core.units`). Windows of stages that were never opened are left out.
    """
    stages = {each.number: each for each in evidence.stages}
    recent = {each.at: each for each in evidence.recent}
    reports = evidence.reports
    for window in windows:
        stage = stages.get(window.stage)
        if stage is None:
            continue
        reports += 1
        arms = {name: _of_window(window, name) for name in ARMS}
        recent = _recently(recent, window, arms)
        if window.number < stage.warm_from:  # hosts warm up: on both arms alike
            arms = {name: msgspec.structs.replace(arm, latency={}) for name, arm in arms.items()}
        stages[window.stage] = _joined(stage, arms, window)
    return _frozen(
        msgspec.structs.replace(
            evidence,
            stages=tuple(stages[number] for number in sorted(stages)),
            recent=tuple(recent[at] for at in sorted(recent)[-RECENT_BUCKETS:]),
            reports=reports,
        )
    )


def _of_window(window: Window, name: str) -> Arm:
    counts = window.arms.get(name)
    arm = Arm() if counts is None else Arm().plus(counts)
    mine = [event for event in window.units if ARMS[event.arm] == name]
    if not mine:
        return arm
    latency: dict[int, int] = {}
    values: dict[int, int] = {}
    requests = errors = invalid = 0
    for event in mine:
        if event.kind == FIRST:
            requests += 1
            if event.latency >= 0:
                latency[event.latency] = latency.get(event.latency, 0) + 1
            if event.value >= 0:
                values[event.value] = values.get(event.value, 0) + 1
        elif event.kind == ERROR:
            errors += 1
        else:
            invalid += 1
    return arm.plus(Arm(requests, errors, 0, invalid, latency, values))


def _joined(stage: Stage, arms: Mapping[str, Arm], window: Window) -> Stage:
    fallbacks = dict(stage.fallbacks)
    for reason, count in window.fallbacks.items():
        fallbacks[reason] = fallbacks.get(reason, 0) + count
    return msgspec.structs.replace(
        stage,
        baseline=stage.baseline.plus(arms["baseline"]),
        twin=stage.twin.plus(arms["twin"]),
        candidate=stage.candidate.plus(arms["candidate"]),
        pairs=stage.pairs if window.pairs is None else paired(stage.pairs, window.pairs),
        mirrored=stage.mirrored + window.mirrored,
        dropped=stage.dropped + window.dropped,
        excluded=stage.excluded + window.excluded,
        fallbacks=fallbacks,
    )


def paired(one: PairCounts, other: PairCounts) -> PairCounts:
    """Both together; at most 400 different labels are told apart."""
    confusion = dict(one.confusion)
    for key, count in other.confusion.items():
        if key in confusion or len(confusion) < 400:
            confusion[key] = confusion.get(key, 0) + count
    return PairCounts(
        one.total + other.total,
        one.both + other.both,
        one.agree + other.agree,
        one.worse + other.worse,
        one.better + other.better,
        one.neither + other.neither,
        one.difference + _whole(other.difference),
        max(one.largest, other.largest),
        confusion,
        added(one.latency, other.latency),
    )


def _whole(difference: float) -> float:
    """To 2**-20: such sums come out the same in any order (while below 2**32)."""
    return round(difference * _UNIT) / _UNIT


def _recently(
    recent: dict[int, Recent], window: Window, arms: Mapping[str, Arm]
) -> dict[int, Recent]:
    at = window.number // int(RECENT_SECONDS * 5)
    was = recent.get(at, Recent(at))
    plain = window.plain or _plain(arms)
    recent[at] = Recent(
        at,
        was.candidate + plain[4],
        was.candidate_failed + plain[5],
        was.stable + plain[0] + plain[2],
        was.stable_failed + plain[1] + plain[3],
    )
    return recent


def _plain(arms: Mapping[str, Arm]) -> list[int]:
    """`Window.plain` of a window whose requests had no keys."""
    found: list[int] = []
    for name in ARMS:
        arm = arms[name]
        found += (arm.requests, arm.failed + arm.invalid)
    return found


def _frozen(evidence: Evidence) -> Evidence:
    """Fix the reference once enough was seen, and begin latency anew: what it was made from is
    never compared by it.
    """
    if evidence.reference is not None:
        return evidence
    seen: dict[int, int] = {}
    for stage in evidence.stages:
        compared = stage.compared
        if compared is not None:
            seen = added(added(seen, compared[1].latency), stage.candidate.latency)
    if sum(seen.values()) < REFERENCE:
        return evidence
    stages = tuple(
        msgspec.structs.replace(
            stage,
            baseline=msgspec.structs.replace(stage.baseline, latency={}),
            twin=msgspec.structs.replace(stage.twin, latency={}),
            candidate=msgspec.structs.replace(stage.candidate, latency={}),
        )
        for stage in evidence.stages
    )
    return msgspec.structs.replace(evidence, stages=stages, reference=Reference(seen))
