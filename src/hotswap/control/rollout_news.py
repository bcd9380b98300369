"""What is said of rollouts when they move: in the log, to who listens, to who waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import structlog

from hotswap.control.events import Events
from hotswap.control.rollout_run import Run
from hotswap.core.phases import phase, reason

log = structlog.get_logger("hotswap.control")


class News:
    """``events`` are those of the admin API."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._urgent = asyncio.Event()

    def tell(self, run: Run) -> None:
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
        self._events.tell("rollout", rollout.spec.model, status.message, **data)
        needs_someone = now in ("RolledBack", "Degraded", "Failed") or (
            now == "Paused" and why != "user"
        )
        if needs_someone:
            self._events.tell("alert", rollout.spec.model, status.message, **data)

    def hurry(self) -> None:
        """Something cannot wait for the next tick."""
        self._urgent.set()

    async def wait(self, seconds: float) -> None:
        """Until there is news that cannot wait, at most so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._urgent.wait(), seconds)
        self._urgent.clear()
