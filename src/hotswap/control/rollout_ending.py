"""Rollouts that end since something else is to happen to their models."""

from __future__ import annotations

import asyncio

import msgspec

from hotswap.control.rollout_book import Book
from hotswap.control.rollout_effects import Effects
from hotswap.control.rollout_news import News
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_saving import Saving
from hotswap.control.rollout_shown import Shown
from hotswap.control.rollout_ticks import RolloutTicks
from hotswap.core.decide import entered, returned
from hotswap.core.journal import Record
from hotswap.core.rollout import FINAL, Status
from hotswap.core.rollout_views import RolloutView
from hotswap.errors import Conflict
from hotswap.ports import Clock

#: How long a forced switch waits for a rollout to be back.
_RETURN_SECONDS = 10.0


class Ending:
    """Another rollout, a forced switch, a rollback, the model's removal."""

    def __init__(
        self,
        saving: Saving,
        clock: Clock,
        book: Book,
        effects: Effects,
        ticks: RolloutTicks,
        shown: Shown,
        news: News,
    ) -> None:
        self._saving = saving
        self._clock = clock
        self._book = book
        self._effects = effects
        self._ticks = ticks
        self._shown = shown
        self._news = news

    async def end(self, run: Run, status: Status, why: str) -> None:
        """What is decided by something else than the machine. Only ever lowers exposure."""
        before = run.rollout
        status = msgspec.structs.replace(status, generation=before.status.generation + 1)
        after = msgspec.structs.replace(before, status=status, updated_at=self._clock.wall())
        await self._saving.record(
            run, after, "superseded", Record(before, status), must=False,
            command="supersede", why=why,
        )  # fmt: skip
        self._news.tell(run)

    async def end_watch(self, run: Run) -> None:
        """It was promoted and is only watched: it is healthy as far as it was seen."""
        async with run.lock:
            if run.status.state == "watching":
                why = "something else begins"
                await self.end(run, entered(run.status, "healthy", "promoted", why), why)
            self._book.current.pop(run.rollout.spec.model, None)

    async def replace(self, run: Run) -> None:
        """What runs goes back, and what waits does not begin: this one comes instead of them."""
        name = run.rollout.spec.model
        await self.supersede(name, "another rollout replaces it")
        why = "another rollout replaced it before it began"
        for other in list(self._book.runs.values()):
            waits = other.rollout.spec.model == name and other.status.state == "queued"
            if waits and other.rollout.created_at < run.rollout.created_at:
                async with other.lock:
                    if other.status.state == "queued":
                        status = entered(other.status, "rolled_back", "superseded", why)
                        await self.end(other, status, why)

    async def supersede(self, model: str, why: str) -> None:
        """Take back the running rollout of a model: something else is about to happen to it."""
        run = self._book.current.get(model)
        if run is None or run.rollout.final or run.status.state == "rolling_back":
            return
        if run.status.state == "watching":
            await self.end_watch(run)
            return
        mine = object()
        run.barred.add(mine)
        self._effects.lower(run)
        try:
            async with run.lock:
                if run.status.state in (*FINAL, "rolling_back"):
                    return  # meanwhile
                await self.end(run, returned(run.status, "superseded", why), why)
        finally:
            run.barred.discard(mine)
        self._news.hurry()

    async def make_way(self, model: str, why: str) -> None:
        """Before a forced switch: what runs goes back first. Raises `Conflict` if it does not.

        A candidate that bakes stays stable until the switch is carried out, and its bake ends
        with that.
        """
        run = self._book.current.get(model)
        if run is None or run.status.state == "baking":
            return
        await self.supersede(model, why)
        if not run.rollout.final:
            await self.ended(run.rollout.id, _RETURN_SECONDS)
        if not run.rollout.final:
            raise Conflict(f"rollout {run.rollout.id} is still on its way back: try again soon")

    async def removed(self, model: str) -> None:
        """The model is gone, and its tables with it: so are its rollouts, in whatever state."""
        why = "the model was removed"
        for run in list(self._book.runs.values()):
            if run.rollout.spec.model == model and not run.rollout.final:
                async with run.lock:
                    status = entered(run.status, "rolled_back", "superseded", why)
                    status = msgspec.structs.replace(status, exposure=None)
                    await self.end(run, status, why)

    def unwanted(self, model: str, version: str) -> bool:
        """Whether a flip to that version is not to be finished: its rollout goes back meanwhile."""
        run = self._book.current.get(model)
        return (
            run is not None
            and run.rollout.spec.version == version
            and run.status.state == "rolling_back"
        )

    async def ended(self, id: str, seconds: float) -> RolloutView:
        """The rollout once it is over, or after so many seconds as it is then."""
        run = self._book.find(id)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not run.closed and loop.time() < deadline:
            async with run.lock:
                await self._ticks.advance(run)
            if not run.closed:
                await asyncio.sleep(0.01)
        return self._shown.view(run, metrics=False)
