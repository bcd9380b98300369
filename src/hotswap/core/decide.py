"""What happens to a rollout next: one pure function of what is, what was seen, and how long it took."""

from __future__ import annotations

import msgspec

from hotswap.core.aftercare import alarmed, baseline_rate, told
from hotswap.core.analysis import Analysis
from hotswap.core.durations import spoken
from hotswap.core.plan import (
    Adapt,
    Bake,
    Mirror,
    Pair,
    SetWeight,
)
from hotswap.core.rollout import (
    CAPACITY_SECONDS,
    FINAL,
    PAUSE_SECONDS,
    PREPARE_SECONDS,
    PROMOTE_SECONDS,
    RESTARTS,
    RETURN_SECONDS,
    Decision,
    Observation,
    Rollout,
    Status,
    analysed,
)
from hotswap.core.sentences import evidence_so_far
from hotswap.core.taking import take
from hotswap.core.transitions import entered, exposed, hold, returned

__all__ = ["decide", "entered", "returned"]

_replace = msgspec.structs.replace
#: A plan has at most some hundreds of steps; no tick passes more.
_STEPS = 1000
#: So long a changed exposure may take to be seen before that holds the rollout.
_CHANGING = 10.0


def decide(rollout: Rollout, seen: Observation, seconds: float) -> Decision:
    """The status after a tick of ``seconds``. Never raises; never lets anything but proof promote."""
    before = rollout.status
    if before.state in FINAL:
        return Decision(before, False)
    status = _aged(before, max(0.0, seconds))
    analysis: Analysis | None = None
    if status.state == "queued":
        status = _queued(status, seen)
    elif status.state == "preparing":
        status = _preparing(rollout, status, seen)
    elif status.state == "rolling_back":
        status = _returning(rollout, status, seen)
    elif status.state == "watching":
        status = _watching(rollout, status, seen)
    else:
        analysis = analysed(rollout, seen)
        peaks = {each.name: each.proof for each in analysis.metrics if each.proof > 0.0}
        status = _replace(status, peaks=peaks)
        status = _alarmed(rollout, status, seen, analysis) or _onward(
            rollout, status, seen, analysis
        )
    moved = _moved(before, status)
    if moved:
        status = _replace(status, generation=before.generation + 1)
    return Decision(status, moved, analysis)


def _moved(before: Status, after: Status) -> bool:
    return (
        (before.state, before.step, before.exposure, before.reason, set(before.holds))
        != (after.state, after.step, after.exposure, after.reason, set(after.holds))
    ) or before.extended != after.extended


def _aged(status: Status, seconds: float) -> Status:
    return _replace(
        status,
        elapsed=status.elapsed + seconds,
        state_elapsed=status.state_elapsed + seconds,
        step_elapsed=status.step_elapsed + (0.0 if status.holds else seconds),
        holds={reason: lasted + seconds for reason, lasted in status.holds.items()},
    )


# --- before and after exposure


def _queued(status: Status, seen: Observation) -> Status:
    if not seen.blocked:
        return entered(status, "preparing", "hosts", "its turn has come")
    if status.state_elapsed >= PAUSE_SECONDS:
        return entered(status, "failed", "expired", "its turn did not come within 30 days")
    return status


def _preparing(rollout: Rollout, status: Status, seen: Observation) -> Status:
    if seen.load_error:
        return entered(status, "failed", "load", seen.load_error)
    if seen.ready:
        status = entered(status, "running", "step", f"{rollout.spec.version} is warm")
        return _replace(status, step_elapsed=0.0)
    if status.state_elapsed >= PREPARE_SECONDS:
        why = seen.lacking or "it did not become warm"
        return entered(status, "failed", "load", f"not prepared within 10 min: {why}")
    return _replace(
        status, reason="hosts", message=seen.lacking or f"waiting for {rollout.spec.version}"
    )


def _returning(rollout: Rollout, status: Status, seen: Observation) -> Status:
    # Not by what was noted: a flip can have been carried out just before it could be noted. That
    # nothing is known of the active version says nothing, unless there was none to begin with.
    known = seen.active is not None or rollout.stable is None
    home = known and seen.active != rollout.spec.version
    if seen.exposed is None and home:
        return entered(status, "rolled_back", status.reason, status.message)
    if seen.target is None and known and not home:
        why = f"{status.message}; and there is no version to return to"
        return entered(status, "degraded", status.reason, why)
    if status.state_elapsed >= RETURN_SECONDS:
        why = f"{status.message}; and going back was not carried out within 10 min"
        return entered(status, "degraded", status.reason, why)
    return status


def _watching(rollout: Rollout, status: Status, seen: Observation) -> Status:
    if seen.active not in (None, rollout.spec.version):
        return entered(
            status, "healthy", "promoted", "promoted; another version was made stable since"
        )
    status = told(status, seen.served)
    if alarmed(status):
        why = f"errors of {rollout.spec.version} rose after its promotion"
        if seen.target is None:
            return entered(
                status, "degraded", "watch", f"{why}; and there is no version to return to"
            )
        return returned(status, "watch", why)
    if status.state_elapsed >= rollout.spec.watch_seconds:
        return entered(
            status, "healthy", "promoted", f"{rollout.spec.version} is stable and proved"
        )
    return status


# --- alarms, in every state in which the candidate is exposed


def _alarmed(
    rollout: Rollout, status: Status, seen: Observation, analysis: Analysis
) -> Status | None:
    """On the way back, if anything says so; else None."""
    version, baking = rollout.spec.version, status.state == "baking"
    if baking and seen.active not in (None, version):
        gone = entered(status, "rolled_back", "superseded", "another version was made stable")
        return _replace(gone, exposure=None)
    found: tuple[str, str] | None = None
    if seen.breaker:
        found = "tripwire", f"the breaker took {version} out: {seen.breaker}"
    elif analysis.tripped:
        found = "tripwire", analysis.tripped
    elif seen.restarts >= RESTARTS:
        found = "tripwire", f"the process of {version} died {seen.restarts} times"
    elif seen.load_error:
        found = "tripwire", f"{version} does not stay up: {seen.load_error}"
    elif analysis.failed and not baking and not status.forced:
        found = "guardrail", evidence_so_far(rollout, analysis)
    elif baking and not status.forced and analysis.late:
        why = f"labels of before its promotion say that {version} is worse"
        found = "guardrail", f"{why}: {evidence_so_far(rollout, analysis)}"
    if found is None:
        return None
    reason, message = found
    if baking:
        reason = "bake"
    return returned(status, reason, message)


# --- onward


def _onward(rollout: Rollout, status: Status, seen: Observation, analysis: Analysis) -> Status:
    if status.state == "promoting":
        return _promoting(rollout, status, seen)
    status = _held(rollout, status, seen, analysis)
    expired = next((r for r, lasted in status.holds.items() if lasted >= _patience(r)), None)
    if expired is not None:
        lasted = spoken(_patience(expired))
        return returned(status, "expired", f"it was held ({expired}) for {lasted}")
    if status.state == "baking":
        return _baking(rollout, status, seen)
    for _ in range(_STEPS):
        # Waiting for evidence does not stop the wait for it; everything else does.
        if set(status.holds) - {"insufficient"}:
            return status
        after = take(rollout, status, seen, analysis)
        if after.step == status.step or after.state != "running":
            return after
        status = after
    return status


def _patience(reason: str) -> float:
    return CAPACITY_SECONDS if reason == "capacity" else PAUSE_SECONDS


def _held(rollout: Rollout, status: Status, seen: Observation, analysis: Analysis) -> Status:
    """Reasons to hold that come and go by themselves."""
    now = {
        "metrics_outage": ", ".join(analysis.outage),
        # After the promotion no coin is tossed: what the counters say of it changes no more.
        "sample_ratio": "" if status.state == "baking" else analysis.distrust,
        "store": seen.outage,
        "capacity": _lost(rollout, status, seen),
    }
    holds = {reason: lasted for reason, lasted in status.holds.items() if now.get(reason, "on")}
    for reason, why in now.items():
        if why and reason not in holds:
            holds[reason] = 0.0
            status = _replace(status, message=why)
    return _replace(status, holds=holds)


def _lost(rollout: Rollout, status: Status, seen: Observation) -> str:
    """What is missing of what was exposed already: hosts, or its place in the route table."""
    if status.exposure is None:
        return ""
    if seen.exposed == status.exposure:
        return "" if seen.ready else seen.lacking or "hosts are missing"
    step = rollout.steps[status.step]
    if isinstance(step, SetWeight | Mirror | Pair):
        return ""  # on its way, and with a deadline of its own
    since = status.step_elapsed - (status.adapted if isinstance(step, Adapt) else 0.0)
    if isinstance(step, Adapt | Bake) and since < _CHANGING:
        return ""  # it was changed just now
    return seen.lacking or "the route table does not show it"


def _promoting(rollout: Rollout, status: Status, seen: Observation) -> Status:
    if seen.active == rollout.spec.version:
        status = exposed(status, weight=10_000, bake=True)
        spec = rollout.spec
        status = entered(status, "baking", "bake", f"{spec.version} is stable")
        return _replace(
            status,
            step=status.step + 1,
            step_elapsed=0.0,
            detector=baseline_rate(rollout, seen.rate),
            seen=(0, 0),
        )
    if seen.outage:  # that nothing can be saved says nothing of the candidate: its clock stands
        waiting = hold(status, "store", seen.outage)
        if waiting.holds["store"] >= PAUSE_SECONDS:
            lasted = spoken(PAUSE_SECONDS)
            return returned(status, "expired", f"its promotion was held (store) for {lasted}")
        return waiting
    if status.step_elapsed >= PROMOTE_SECONDS:
        why = seen.lacking or "the flip was not carried out"
        return returned(status, "promotion", f"not promoted within 10 min: {why}")
    return _replace(status, holds={})


def _baking(rollout: Rollout, status: Status, seen: Observation) -> Status:
    stage = rollout.evidence.stage(status.stage)
    if stage is not None:
        arm = stage.candidate
        status = told(status, (arm.failed + arm.invalid, arm.requests))
    if alarmed(status):
        return returned(
            status, "bake", f"errors of {rollout.spec.version} rose after its promotion"
        )
    if set(status.holds) & {"user"}:
        return status
    step = rollout.steps[status.step]
    assert isinstance(step, Bake)
    left = step.seconds - status.step_elapsed
    if left > 0:
        return _replace(
            status, message=f"{rollout.spec.version} is stable; {rollout.stable} stays warm"
        )
    done = f"{rollout.spec.version} is stable and proved"
    ended = _replace(entered(status, "watching", "watching", done), exposure=None)
    if rollout.spec.watch_seconds <= 0 or rollout.stable is None:
        return entered(ended, "healthy", "promoted", done)
    return _replace(ended, seen=seen.served)
