"""What an operator may do to a rollout, and when. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from hotswap.core.analysis import Analysis
from hotswap.core.decide import entered, hold, next_step, promoting, returned, unheld
from hotswap.core.evidence import Evidence
from hotswap.core.phases import phase, reason
from hotswap.core.plan import Promote
from hotswap.core.rollout import FINAL, Rollout, Status
from hotswap.errors import Conflict

COMMANDS: Final = ("promote", "pause", "resume", "abort", "retry", "skip")


def commanded(
    rollout: Rollout, command: str, analysis: Analysis, *, force: bool = False, why: str = ""
) -> Rollout:
    """The rollout after a command. Raises `Conflict`, telling the state, where it is illegal.

    An abort of what goes back already changes nothing and is no error.
    """
    status = rollout.status
    said = f" ({why})" if why else ""
    if command == "abort":
        after = _aborted(rollout, said)
    elif command == "retry":
        return _retried(rollout, said)
    elif command == "pause":
        after = _paused(rollout, said)
    elif command == "resume":
        after = _resumed(rollout, said)
    elif command == "skip":
        after = _skipped(rollout, said)
    else:
        after = _promoted(rollout, analysis, force, said)
    if after is status:
        return rollout
    after = msgspec.structs.replace(after, generation=status.generation + 1)
    return msgspec.structs.replace(rollout, status=after)


def refusal(rollout: Rollout, command: str, why: str) -> Conflict:
    """What the caller of an illegal command is told."""
    status = rollout.status
    return Conflict(
        f"cannot {command} rollout {rollout.id}: {why}; it is {phase(status)} "
        f"({reason(status)}) at generation {status.generation}"
    )


def _aborted(rollout: Rollout, said: str) -> Status:
    status = rollout.status
    if status.state in ("rolling_back", "rolled_back"):
        return status
    if status.state in FINAL or status.state == "watching":
        raise refusal(rollout, "abort", "it is over: 'hotswap rollback' goes back")
    if status.state == "queued":
        return entered(status, "rolled_back", "aborted", f"aborted before it began{said}")
    return returned(status, "aborted", f"aborted by an operator{said}")


def _retried(rollout: Rollout, said: str) -> Rollout:
    """The next attempt: from the first step, with fresh evidence and fresh keys."""
    status = rollout.status
    if status.state not in ("rolled_back", "failed"):
        raise refusal(rollout, "retry", "only what was rolled back or failed can be tried again")
    after = Status(
        attempt=status.attempt + 1,
        generation=status.generation + 1,
        stage=status.stage,
        reason="hosts",
        message=f"tried again{said}",
    )
    before = rollout.evidence
    fresh = Evidence(
        error_mean=before.error_mean,
        invalid_mean=before.invalid_mean,
        run=before.run,
        sequence=before.sequence,
    )
    return msgspec.structs.replace(rollout, status=after, evidence=fresh)


def _paused(rollout: Rollout, said: str) -> Status:
    status = rollout.status
    if status.state not in ("running", "baking"):
        raise refusal(rollout, "pause", "there is nothing to hold")
    if "user" in status.holds:
        raise refusal(rollout, "pause", "it is paused already")
    return hold(status, "user", f"paused by an operator{said}")


def _resumed(rollout: Rollout, said: str) -> Status:
    status = rollout.status
    held = {"user", "approval", "insufficient"} & set(status.holds)
    if not held or status.state not in ("running", "baking"):
        raise refusal(rollout, "resume", "no person holds it")
    after = unheld(status, *held)
    # Resuming what lacked evidence is waiting as long once more, never going on without.
    if "insufficient" in held:
        after = msgspec.structs.replace(after, extended=status.extended + 1)
    approved = status.approved or "approval" in held
    return msgspec.structs.replace(
        after, approved=approved, message=f"resumed by an operator{said}"
    )


def _skipped(rollout: Rollout, said: str) -> Status:
    status = rollout.status
    if status.state != "running":
        raise refusal(rollout, "skip", "it is at no step")
    if isinstance(rollout.steps[status.step], Promote):
        raise refusal(rollout, "skip", "the promotion itself cannot be skipped: 'promote' does it")
    if "user" in status.holds:
        raise refusal(rollout, "skip", "it is paused: resume it first")
    after = next_step(status, f"step skipped by an operator{said}")
    return msgspec.structs.replace(after, passed=(*status.passed, status.step))


def _promoted(rollout: Rollout, analysis: Analysis, force: bool, said: str) -> Status:
    status = rollout.status
    if status.state != "running":
        raise refusal(rollout, "promote", "there is nothing to promote now")
    if not any(isinstance(step, Promote) for step in rollout.steps):
        raise refusal(rollout, "promote", f"a rollout by {rollout.spec.strategy} ends without")
    bad = analysis.tripped or analysis.failed or analysis.distrust
    if bad and not force:
        raise refusal(rollout, "promote", f"a guardrail says fail ({bad})")
    return promoting(rollout, status, f"promoted by an operator{said}")
