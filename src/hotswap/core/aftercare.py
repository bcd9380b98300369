"""After the promotion no coin is left: a change detector watches the new stable. Pure."""

from __future__ import annotations

import math

import msgspec

from hotswap.core.rollout import Rollout, Status
from hotswap.stats import change

#: Weight, in requests, of the rate that was frozen before the rollout.
_BEFORE = 200.0
_LEAST_RATE = 1e-4
_MARGIN = 1.5
_DEVIATIONS = 3.0


def baseline_rate(rollout: Rollout, per_second: float) -> tuple[float, ...]:
    """A detector by stable's failure rate as it was beside the candidate, or as much more as a
    candidate may have that was shown to be within the usual margin, and as so few failures leave
    open: by the rate itself every second detector would sound in a long watch.

    Its mean time to a false alarm is as many requests as bring one about with probability
    alpha, at most, in the bake and the watch together.
    """
    evidence = rollout.evidence
    stable = [stage.stable for stage in evidence.stages]
    failed = sum(arm.failed + arm.invalid for arm in stable)
    requests = sum(arm.requests for arm in stable)
    before = evidence.error_mean + evidence.invalid_mean
    rate = (failed + before * _BEFORE) / (requests + _BEFORE)
    open_ = 0.0
    if requests > _BEFORE:
        open_ = _DEVIATIONS * math.sqrt(failed + 1) / (requests + _BEFORE)
    rate = max(_MARGIN * rate, rate + open_)
    spec = rollout.spec
    coming = max(1000.0, min(1e12, per_second) * (spec.bake_seconds + spec.watch_seconds))
    detector = change.start(min(0.5, max(_LEAST_RATE, rate)), arl=coming / spec.alpha)
    return flat(detector)


def flat(detector: change.Detector) -> tuple[float, ...]:
    """As plain numbers, for the status."""
    return (detector.baseline, detector.arl, detector.batch, detector.peak, *detector.wealth)


def whole(numbers: tuple[float, ...]) -> change.Detector:
    """The detector of plain numbers."""
    baseline, arl, batch, peak, *wealth = numbers
    return change.Detector(baseline, arl, batch, tuple(wealth), peak)


def told(status: Status, served: tuple[int, int]) -> Status:
    """The detector after what is new in (failures, requests) so far."""
    events, total = served[0] - status.seen[0], served[1] - status.seen[1]
    if status.detector is None or total < 0 or events < 0:
        return msgspec.structs.replace(status, seen=served)
    if total == 0:
        return status  # a failure is told with the requests that come next
    detector = change.update(whole(status.detector), min(events, total), total)
    return msgspec.structs.replace(status, detector=flat(detector), seen=served)


def alarmed(status: Status) -> bool:
    """Whether the detector says that errors rose."""
    return status.detector is not None and change.alarmed(whole(status.detector))
