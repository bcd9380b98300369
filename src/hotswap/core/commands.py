"""What an operator may do to a rollout, and when. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from hotswap.core.analysis import Analysis
from hotswap.core.evidence import Evidence
from hotswap.core.phases import phase, reason
from hotswap.core.plan import End, Promote
from hotswap.core.rollout import FINAL, Rollout, Status
from hotswap.core.transitions import FORCED, entered, hold, next_step, promoting, returned, unheld
from hotswap.errors import BadInput, Conflict

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
    elif command == "promote":
        after = _promoted(rollout, analysis, force, said)
    else:
        raise BadInput(f"there is no command {command!r}: use {', '.join(COMMANDS)}")
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
    # The one that is shown: to end one's own pause is not to approve of what waited beneath it.
    held = next((each for each in ("user", "approval", "insufficient") if each in status.holds), "")
    if not held or status.state not in ("running", "baking"):
        raise refusal(rollout, "resume", "no person holds it")
    after = unheld(status, held)
    # Resuming what lacked evidence is waiting as long once more, never going on without.
    if held == "insufficient":
        after = msgspec.structs.replace(after, extended=status.extended + 1)
    approved = status.approved or held == "approval"
    return msgspec.structs.replace(
        after, approved=approved, message=f"resumed by an operator{said}"
    )


def _skipped(rollout: Rollout, said: str) -> Status:
    status = rollout.status
    if status.state != "running":
        raise refusal(rollout, "skip", "it is at no step")
    if isinstance(rollout.steps[status.step], Promote):
        raise refusal(rollout, "skip", "the promotion itself cannot be skipped: 'promote' does it")
    if isinstance(rollout.steps[status.step], End):
        raise refusal(rollout, "skip", "nothing follows its last step: 'abort' ends it")
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
    if analysis.tripped:  # it would be taken back at once, whoever insists
        raise refusal(rollout, "promote", f"a limit is passed ({analysis.tripped})")
    bad = analysis.failed or analysis.distrust
    if bad and not force:
        raise refusal(rollout, "promote", f"a guardrail says fail ({bad}): force insists")
    reason = FORCED if bad else "flip"
    return promoting(rollout, status, f"promoted by an operator{said}", reason)
