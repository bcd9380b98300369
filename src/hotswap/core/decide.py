"""What happens to a rollout next: one pure function of what is, what was seen, and how long it took."""

from __future__ import annotations

import msgspec

from hotswap.core.aftercare import alarmed, baseline_rate, told
from hotswap.core.analysis import Analysis, two_sided
from hotswap.core.bandit import moved_weight
from hotswap.core.durations import spoken
from hotswap.core.plan import (
    HALF,
    Adapt,
    Analyse,
    Approval,
    Bake,
    End,
    Hold,
    Mirror,
    Pair,
    Promote,
    Requests,
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
    Exposure,
    Observation,
    Rollout,
    Status,
    analysed,
)
from hotswap.core.sentences import evidence_so_far

_replace = msgspec.structs.replace
#: A plan has at most some hundreds of steps; no tick passes more.
_STEPS = 1000


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


def entered(status: Status, state: str, reason: str, message: str) -> Status:
    """In another state, with its clock at zero and nothing holding it."""
    return _replace(
        status, state=state, reason=reason, message=message, state_elapsed=0.0, holds={}
    )


def returned(status: Status, reason: str, message: str) -> Status:
    """On the way back: nothing of the candidate is to be seen from now on."""
    return _replace(entered(status, "rolling_back", reason, message), exposure=None)


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
    # Not by what was noted: a flip can have been carried out just before it could be noted.
    home = seen.active != rollout.spec.version
    if seen.exposed is None and home:
        return entered(status, "rolled_back", status.reason, status.message)
    if seen.target is None and not home:
        why = f"{status.message}; and there is no version to return to"
        return entered(status, "degraded", status.reason, why)
    if status.state_elapsed >= RETURN_SECONDS:
        why = f"{status.message}; and going back was not carried out within 10 min"
        return entered(status, "degraded", status.reason, why)
    return status


def _watching(rollout: Rollout, status: Status, seen: Observation) -> Status:
    if seen.active != rollout.spec.version:
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
    if baking and seen.active != version:
        return entered(status, "rolled_back", "superseded", "another version was made stable")
    found: tuple[str, str] | None = None
    if seen.breaker:
        found = "tripwire", f"the breaker took {version} out: {seen.breaker}"
    elif analysis.tripped:
        found = "tripwire", analysis.tripped
    elif seen.restarts >= RESTARTS:
        found = "tripwire", f"the process of {version} died {seen.restarts} times"
    elif seen.load_error:
        found = "tripwire", f"{version} does not stay up: {seen.load_error}"
    elif analysis.failed and not baking:
        found = "guardrail", evidence_so_far(rollout, analysis)
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
    status = _held(status, seen, analysis)
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
        after = _step(rollout, status, seen, analysis)
        if after.step == status.step or after.state != "running":
            return after
        status = after
    return status


def _patience(reason: str) -> float:
    return CAPACITY_SECONDS if reason == "capacity" else PAUSE_SECONDS


def _held(status: Status, seen: Observation, analysis: Analysis) -> Status:
    """Reasons to hold that come and go by themselves."""
    now = {
        "metrics_outage": ", ".join(analysis.outage),
        "sample_ratio": analysis.distrust,
        "store": seen.outage,
        "capacity": _lost(status, seen),
    }
    holds = {reason: lasted for reason, lasted in status.holds.items() if now.get(reason, "on")}
    for reason, why in now.items():
        if why and reason not in holds:
            holds[reason] = 0.0
            status = _replace(status, message=why)
    return _replace(status, holds=holds)


def _lost(status: Status, seen: Observation) -> str:
    """What is missing of the capacity for what is exposed already."""
    if seen.ready or status.exposure is None or seen.exposed != status.exposure:
        return ""
    return seen.lacking or "hosts are missing"


def hold(status: Status, reason: str, message: str) -> Status:
    """With one more reason to stay."""
    if reason in status.holds:
        return _replace(status, message=message)
    return _replace(status, holds={**status.holds, reason: 0.0}, message=message)


def unheld(status: Status, *reasons: str) -> Status:
    """Without these reasons to stay."""
    left = {reason: lasted for reason, lasted in status.holds.items() if reason not in reasons}
    return _replace(status, holds=left)


def next_step(status: Status, message: str = "") -> Status:
    """At the next step, its clock at zero."""
    return _replace(
        unheld(status, "insufficient", "approval"),
        step=status.step + 1,
        step_elapsed=0.0,
        extended=0,
        approved=False,
        message=message or status.message,
    )


def _exposed(status: Status, **shape: int | bool) -> Status:
    """With another exposure wanted: another stage, unless it is as it was."""
    now = status.exposure
    wanted = Exposure(0, **shape)  # type: ignore[arg-type]
    if now is not None and _replace(now, stage=0) == wanted:
        return status
    stage = status.stage + 1
    return _replace(status, stage=stage, exposure=_replace(wanted, stage=stage))


def twinned(rollout: Rollout, weight: int) -> bool:
    """Whether stable needs a second set of hosts for latency to be compared at this weight."""
    return weight < HALF or (weight == HALF and rollout.instances > 1)


def _step(rollout: Rollout, status: Status, seen: Observation, analysis: Analysis) -> Status:
    step = rollout.steps[status.step]
    if isinstance(step, SetWeight | Mirror | Pair):
        if isinstance(step, SetWeight):
            wanted = _exposed(status, weight=step.weight, twin=twinned(rollout, step.weight))
        elif isinstance(step, Mirror):
            wanted = _exposed(status, mirror=step.share)
        else:
            wanted = _exposed(status, weight=step.weight, pair=True)
        if seen.exposed == wanted.exposure:
            return next_step(wanted, evidence_so_far(rollout, analysis))
        why = seen.lacking or "the route table is being changed"
        if status.step_elapsed >= CAPACITY_SECONDS:
            return returned(status, "capacity", f"not carried out within an hour: {why}")
        return _replace(wanted, message=why)
    if status.exposure is not None and seen.exposed != status.exposure:
        return status  # what is counted now belongs to another stage
    said = _replace(status, message=evidence_so_far(rollout, analysis))
    if isinstance(step, Hold):
        enough = _candidate_requests(rollout, status) >= rollout.spec.min_requests
        over = status.step_elapsed >= step.seconds
        if over and enough:
            return next_step(said)
        return _wait(rollout, said, "requests", step.seconds) if over else said
    if isinstance(step, Requests):
        if _candidate_requests(rollout, status) >= step.count:
            return next_step(said)
        return _wait(rollout, said, f"{step.count} requests")
    if isinstance(step, Approval):
        if status.approved:
            return next_step(said)
        return hold(said, "approval", "waiting for approval: 'resume' goes on")
    if isinstance(step, Adapt):
        return _adapt(rollout, said, step)
    if isinstance(step, Analyse | Promote):
        return _gate(rollout, said, step, analysis)
    if isinstance(step, Bake):  # pragma: no cover - only reached through promotion
        return said
    assert isinstance(step, End)
    ended = entered(status, "completed", "ended", _last_word(rollout, step, analysis))
    return _replace(ended, exposure=None)


def _candidate_requests(rollout: Rollout, status: Status) -> int:
    stage = rollout.evidence.stage(status.stage)
    if stage is None:
        return 0
    return max(stage.candidate.requests, stage.pairs.total)


def _wait(rollout: Rollout, status: Status, what: str, already: float = 0.0) -> Status:
    """For evidence; past the deadline, what the operator chose. Never on."""
    spec = rollout.spec
    limit = already + spec.deadline_seconds * (1 + status.extended)
    if status.step_elapsed < limit:
        return status
    missing = f"not enough was seen within {spoken(limit)} ({what})"
    if spec.on_insufficient == "rollback":
        return returned(status, "insufficient", missing)
    if spec.on_insufficient == "extend" and limit < PAUSE_SECONDS:
        return _replace(status, extended=status.extended + 1, message=f"{missing}: extended")
    return hold(status, "insufficient", f"{missing}: held where it is")


def _gate(rollout: Rollout, status: Status, step: Analyse | Promote, analysis: Analysis) -> Status:
    """Nothing but proof passes."""
    if isinstance(step, Analyse) and step.metric:
        verdict, _, _ = two_sided(rollout.spec, rollout.evidence, step.metric)
        if verdict == "better":
            return next_step(status, f"the candidate is better in {step.metric}")
        if verdict == "worse":
            ended = entered(
                status, "completed", "ended", f"the candidate is worse in {step.metric}"
            )
            return _replace(ended, exposure=None)
        return _wait(rollout, status, f"no verdict on {step.metric}")
    asked = isinstance(step, Analyse) or step.proof
    tested = any(isinstance(each, Analyse) and each.metric for each in rollout.steps)
    if asked and not analysis.proven and not (tested and isinstance(step, Promote)):
        return _wait(rollout, status, f"not shown: {', '.join(analysis.missing)}")
    if isinstance(step, Analyse):
        return next_step(status, "shown to be no worse")
    return promoting(rollout, status, "shown to be no worse" if asked else "promoted as asked")


def promoting(rollout: Rollout, status: Status, why: str) -> Status:
    """About to become stable."""
    at = next(n for n, step in enumerate(rollout.steps) if isinstance(step, Promote))
    skipped = tuple(range(status.step, at))
    status = _replace(status, step=at, step_elapsed=0.0, passed=(*status.passed, *skipped))
    return entered(status, "promoting", "flip", f"{rollout.spec.version} is taking over: {why}")


def _promoting(rollout: Rollout, status: Status, seen: Observation) -> Status:
    if seen.active == rollout.spec.version:
        status = _exposed(status, weight=10_000, bake=True)
        spec = rollout.spec
        status = entered(status, "baking", "bake", f"{spec.version} is stable")
        return _replace(
            status,
            step=status.step + 1,
            step_elapsed=0.0,
            detector=baseline_rate(rollout, seen.rate),
            seen=(0, 0),
        )
    if status.state_elapsed >= PROMOTE_SECONDS:
        why = seen.outage or seen.lacking or "the flip was not carried out"
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


def _adapt(rollout: Rollout, status: Status, step: Adapt) -> Status:
    verdict, _, _ = two_sided(rollout.spec, rollout.evidence, step.metric)
    if verdict == "better":
        return next_step(status, f"the candidate is better in {step.metric}")
    if verdict == "worse":
        return returned(status, "guardrail", f"the candidate is worse in {step.metric}")
    if status.step_elapsed >= step.seconds:
        return _wait(rollout, status, f"no verdict on {step.metric}", step.seconds)
    weight = moved_weight(rollout, status, step)
    if weight is None:
        return status
    status = _replace(status, adapted=status.step_elapsed)
    return _exposed(status, weight=weight, twin=twinned(rollout, weight))


def _last_word(rollout: Rollout, step: End, analysis: Analysis) -> str:
    if step.metric:
        verdict, _, _ = two_sided(rollout.spec, rollout.evidence, step.metric)
        words = {
            "better": f"the candidate is better in {step.metric}",
            "worse": f"the candidate is worse in {step.metric}",
            "insufficient": f"no difference in {step.metric} was shown",
        }
        return f"the test is over: {words[verdict]}"
    return f"over: {evidence_so_far(rollout, analysis)}"
