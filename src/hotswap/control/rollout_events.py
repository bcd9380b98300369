"""What is said of rollouts when they move, in the log and to who listens."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from hotswap.control.events import Events
from hotswap.control.rollout_run import Run
from hotswap.core.phases import phase, reason

log = structlog.get_logger("hotswap.control")


def tell(events: Events, run: Run) -> None:
    """Say what moved, in the log and to listeners."""
    rollout, status = run.rollout, run.status
    now, why = phase(status), reason(status)
    log.info(
        "rollout", rollout=rollout.id, model=rollout.spec.model, phase=now, reason=why,
        step=status.step, message=status.message,
    )  # fmt: skip
    data: Mapping[str, object] = {
        "rollout": rollout.id, "phase": now, "reason": why, "step": status.step,
        "generation": status.generation, "version": rollout.spec.version,
    }  # fmt: skip
    events.tell("rollout", rollout.spec.model, status.message, **data)
    needs_someone = now in ("RolledBack", "Degraded", "Failed") or (
        now == "Paused" and why != "user"
    )
    if needs_someone:
        events.tell("alert", rollout.spec.model, status.message, **data)
