"""Carrying rollouts out: observe, decide, save, then act; lowering exposure first of all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec
import structlog

from hotswap.control.rollout_book import Book
from hotswap.control.rollout_effects import Effects, falls
from hotswap.control.rollout_news import News
from hotswap.control.rollout_observed import Observer
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_saving import Saving
from hotswap.core.decide import decide
from hotswap.core.journal import Record
from hotswap.core.metric_view import metric_views
from hotswap.core.rollout import Decision, Observation, Rollout, Status
from hotswap.core.series import sampled
from hotswap.errors import HotswapError
from hotswap.ports import Clock

log = structlog.get_logger("hotswap.control")

#: So long does a tick wait for stores and flips; what takes longer goes on beside the next ones.
_WAIT_SECONDS = 1.0
#: So long may a tick keep the loop without a pause.
_TURN_SECONDS = 0.02


class Moment(msgspec.Struct, frozen=True):
    """One rollout in one tick: as it was, what was seen, what was decided, after how long."""

    before: Rollout
    seen: Observation
    decision: Decision
    seconds: float


class RolloutTicks:
    """Everything that happens to running rollouts of itself. All of it on control's loop."""

    def __init__(
        self,
        saving: Saving,
        news: News,
        clock: Clock,
        book: Book,
        observer: Observer,
        effects: Effects,
    ) -> None:
        self._saving = saving
        self._news = news
        self._clock = clock
        self._book = book
        self._observer = observer
        self._effects = effects
        self._working: set[asyncio.Task[None]] = set()
        self._saver: asyncio.Task[None] | None = None

    async def tick(self) -> None:
        """Every rollout that is not over, once.

        All are looked at before anything is waited for, so that a store or a flip that hangs for
        one of them keeps none from being lowered.
        """
        loop = asyncio.get_running_loop()
        since = loop.time()
        for run in list(self._book.runs.values()):
            if run.rollout.final and run.closed:
                continue
            if loop.time() - since > _TURN_SECONDS:  # others have their turn: there may be many
                await asyncio.sleep(0)
                since = loop.time()
            try:
                self._look(run)
            except Exception:  # one that cannot be decided must not keep the others
                log.exception("a rollout cannot be decided", rollout=run.rollout.id)
        if self._saver is None or self._saver.done():
            self._saver = self._begin(self._save_due())
        if self._working:
            await asyncio.wait(set(self._working), timeout=_WAIT_SECONDS)

    def _look(self, run: Run) -> None:
        if run.lock.locked():  # somebody moves it: it can only be lowered meanwhile
            seen = self._observer.observe(run)
            status = decide(run.rollout, seen, 0.0).status
            if falls(status) and not falls(run.status):
                run.breaker = run.breaker or status.message  # it stays out, whatever is seen later
                self._effects.lower(run)
            return
        moment = self._decided(run)
        if moment.decision.moved or self._effects.due(run):
            self._begin(self._carried(run, moment))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    async def _save_due(self) -> None:
        try:
            await self._saving.save_due(self._book.runs, len(self._book.current))
        except Exception:
            log.exception("rollouts are not saved")

    async def _carried(self, run: Run, moment: Moment) -> None:
        try:
            async with run.lock:
                if run.status is moment.before.status or not moment.decision.moved:
                    await self._carry(run, moment)
        except HotswapError as exc:
            log.warning("a rollout waits", rollout=run.rollout.id, reason=str(exc))
        except Exception:
            log.exception("a rollout cannot be carried out", rollout=run.rollout.id)

    async def advance(self, run: Run) -> None:
        """One rollout: observe, decide, save, act. Under its lock."""
        await self._carry(run, self._decided(run))

    def _decided(self, run: Run) -> Moment:
        """What happens next; lowered at once if it is to be."""
        now = self._clock.monotonic()
        seconds = 0.0 if run.ticked_at is None else now - run.ticked_at
        run.ticked_at = now
        seen = self._observer.observe(run)
        before = run.rollout
        decision = decide(before, seen, seconds)
        if decision.analysis is not None:
            run.analysis = decision.analysis
            series = sampled(run.document.series, decision.status, decision.analysis)
            if series is not run.document.series:
                run.note(series=series)
        if run.breaker or falls(decision.status):
            self._effects.lower(run)
        exposure = before.status.exposure
        if (
            exposure is not None
            and seen.exposed == exposure
            and run.document.shown < exposure.stage
        ):
            run.note(shown=exposure.stage)
        if not decision.moved:
            run.become(status=decision.status)
        return Moment(before, seen, decision, seconds)

    async def _carry(self, run: Run, moment: Moment) -> None:
        if moment.decision.moved:
            await self._move(run, moment)
        await self._effects.act(run)

    async def _move(self, run: Run, moment: Moment) -> None:
        """Save what was decided before anything of it happens; but not what only lowers or holds."""
        before, decision = moment.before, moment.decision
        status = decision.status
        after = msgspec.structs.replace(run.rollout, status=status, updated_at=self._clock.wall())
        analysis = decision.analysis
        metrics = metric_views(before, analysis) if analysis is not None else ()
        record = Record(before, status, moment.seen, moment.seconds, metrics=metrics)
        must = not _lowering(status) and not _stays(before.status, status)
        if await self._saving.record(run, after, "decided", record, must=must):
            self._news.tell(run)


def _lowering(status: Status) -> bool:
    """Nothing of the candidate is to be seen, so that nothing need be saved first."""
    return status.state == "rolling_back" or (
        status.exposure is None and status.state not in ("promoting", "baking")
    )


def _stays(before: Status, after: Status) -> bool:
    """It only holds, or goes on holding: no more is seen than was."""
    return (before.state, before.step, before.exposure, before.approved) == (
        after.state, after.step, after.exposure, after.approved,
    )  # fmt: skip
