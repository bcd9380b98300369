"""What each kind of step waits for, and what it brings about. Pure."""

from __future__ import annotations

import msgspec

from hotswap.core.analysis import Analysis, two_sided
from hotswap.core.bandit import moved_weight
from hotswap.core.durations import spoken
from hotswap.core.plan import (
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
from hotswap.core.rollout import CAPACITY_SECONDS, PAUSE_SECONDS, Observation, Rollout, Status
from hotswap.core.sentences import evidence_so_far
from hotswap.core.transitions import entered, exposed, hold, next_step, promoting, returned, twinned

_replace = msgspec.structs.replace


def take(rollout: Rollout, status: Status, seen: Observation, analysis: Analysis) -> Status:
    """The status after the step at which the rollout stands was tried."""
    step = rollout.steps[status.step]
    if isinstance(step, SetWeight | Mirror | Pair):
        if isinstance(step, SetWeight):
            wanted = exposed(status, weight=step.weight, twin=twinned(rollout, step.weight))
        elif isinstance(step, Mirror):
            wanted = exposed(status, mirror=step.share)
        else:
            wanted = exposed(status, weight=step.weight, pair=True, twin=rollout.apart)
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
    # Each extension is as long as all before it: a short deadline makes no endless journal.
    limit = already + spec.deadline_seconds * 2.0 ** min(status.extended, 30)
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
    missing = analysis.missing
    if asked and missing:
        return _wait(rollout, status, f"not shown: {', '.join(missing)}")
    if isinstance(step, Analyse):
        return next_step(status, "shown to be no worse")
    return promoting(rollout, status, "shown to be no worse" if asked else "promoted as asked")


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
    return exposed(status, weight=weight, twin=twinned(rollout, weight))


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
