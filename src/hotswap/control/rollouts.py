"""All rollouts of a node: read back, ticked, told what workers counted; the rest is their parts'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from hotswap.control.catalogue import Catalogue
from hotswap.control.events import Events
from hotswap.control.exposing import exposure_of
from hotswap.control.node import Node
from hotswap.control.recorded import Recorded
from hotswap.control.rollout_admission import Admission
from hotswap.control.rollout_book import Book
from hotswap.control.rollout_commands import Commands
from hotswap.control.rollout_effects import Effects
from hotswap.control.rollout_ending import Ending
from hotswap.control.rollout_feeds import Feeds
from hotswap.control.rollout_labels import LabelCounting
from hotswap.control.rollout_news import News
from hotswap.control.rollout_observed import Observer
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_saving import Saving
from hotswap.control.rollout_shown import Shown
from hotswap.control.rollout_splits import Splits
from hotswap.control.rollout_store import RolloutStore
from hotswap.control.rollout_ticks import RolloutTicks
from hotswap.control.routes import Routes
from hotswap.control.switching import Switching
from hotswap.core.decide import entered, returned
from hotswap.core.rollout_views import RolloutView
from hotswap.core.stats import ModelStats
from hotswap.core.strategy import RolloutDefaults
from hotswap.ipc.messages import Counted, Tripped
from hotswap.ports import Clock, MetricSource, Store


class Rollouts:
    """`hotswap.control.interface.Control`'s rollouts. ``stats`` gives the operational counters.

    ``admission`` starts them, ``commands`` tell them what to do, ``ending`` ends them for something
    else, ``shown`` is what clients see.
    """

    def __init__(
        self,
        node: Node,
        catalogue: Catalogue,
        routes: Routes,
        switching: Switching,
        store: Store,
        clock: Clock,
        stats: Callable[[], list[ModelStats]],
        sources: Mapping[str, MetricSource],
        defaults: RolloutDefaults,
        events: Events,
        recorded: Recorded | None = None,
    ) -> None:
        self.events = events
        #: whether candidates run on hosts of another kind than stable versions
        self.apart = False
        self.defaults = defaults
        self._node = node
        self._catalogue = catalogue
        self._news = news = News(self.events)
        self._book = book = Book()
        self._runs = book.runs
        self._feeds = feeds = Feeds(stats, sources, clock, node.snapshot.started_at)
        self._labels = LabelCounting(recorded, clock) if recorded is not None else None
        self._store = RolloutStore(store)
        self._saving = saving = Saving(node, self._store, clock)
        self._splits = splits = Splits(node, book, clock)
        observer = Observer(node, catalogue, saving, clock, book, feeds.served)
        effects = Effects(node, catalogue, routes, switching, saving, clock, book, observer, splits)
        self._ticks = RolloutTicks(saving, news, clock, book, observer, effects)
        self.shown = Shown(node, catalogue, self._store, book, observer)
        self.commands = Commands(
            catalogue, saving, clock, book, observer, effects, self.shown, news
        )
        self.ending = Ending(saving, clock, book, effects, self._ticks, self.shown, news)
        self.admission = Admission(
            catalogue, feeds, saving, clock, book, observer, self.ending, self.shown, news, defaults,
            lambda: self.apart, kept_days=0.0 if recorded is None else recorded.days,
        )  # fmt: skip
        self._early: list[Counted] = []
        self._tripped: list[Tripped] = []
        routes.split_of = splits.split_of
        routes.held = splits.held
        node.on_counted = self._counted
        node.on_tripped = self._trip

    async def load(self) -> None:
        """Read what is stored; go on where it was. Raises `StoreError`."""
        run_now = self._node.snapshot.run
        taken: list[Run] = []
        for document, units in await self._store.load():
            rollout = document.rollout
            table = self._node.tables.get(rollout.spec.model)
            run = Run(document, units)
            self._book.add(run)
            if rollout.final:
                continue
            exposed = exposure_of(table, rollout)
            if rollout.status.state != "queued":
                self._book.current[rollout.spec.model] = run
            if rollout.status.state in ("running", "promoting", "baking"):
                run.showing = exposed
            if exposed is not None:  # control may have ended before its stage was saved
                self._splits.open_stage(run, exposed)
            exposure = rollout.status.exposure
            if exposure is None:
                continue
            if rollout.evidence.run not in ("", run_now):
                self._renew_stage(run)
            elif exposed is None and document.shown == exposure.stage and table is not None:
                taken.append(run)
        for run in taken:
            await self._stay_out(run)
        self._book.loaded = True
        for tripped in self._tripped:
            self._trip(tripped)
        for counted in self._early:
            self._counted(counted)
        self._early.clear()
        self._tripped.clear()

    async def _stay_out(self, run: Run) -> None:
        """It was taken out of the route, which waits for no store, and control ended before that
        could be saved: it must not come back of itself.
        """
        if run.status.state != "running":
            return  # the bake and the promotion see by the stable version what became of them
        why = "it had been taken out of the route, and that could not be saved"
        await self.ending.end(run, returned(run.status, "aborted", why), why)

    def _renew_stage(self, run: Run) -> None:
        """Another supervisor: hosts began anew, so what is counted from here is another stage."""
        status = run.status
        assert status.exposure is not None
        stage = status.stage + 1
        exposure = msgspec.structs.replace(status.exposure, stage=stage)
        run.become(status=msgspec.structs.replace(status, stage=stage, exposure=exposure))

    async def tick(self) -> None:
        """All rollouts, once. Waits for nothing for long."""
        self._feeds.read_due(
            run
            for run in self._book.runs.values()
            if not run.rollout.final and run.status.state != "queued"
        )
        if self._labels is not None:
            self._labels.count_due(self._book.runs.values())
        await self._begin_queued()
        await self._ticks.tick()
        self._book.forget_old()

    async def wait(self, seconds: float) -> None:
        """Until there is news that cannot wait, at most so long."""
        await self._news.wait(seconds)

    async def _begin_queued(self) -> None:
        waiting = [run for run in self._book.runs.values() if run.status.state == "queued"]
        for run in sorted(waiting, key=lambda each: each.rollout.created_at):
            name = run.rollout.spec.model
            if run.lock.locked() or run.status.state != "queued":
                continue
            current = self._book.current.get(name)
            if current is not None and not (current.rollout.final and current.closed):
                if run.rollout.spec.on_running == "replace":
                    await self.ending.replace(run)  # control died before it had come to that
                continue
            document = self._catalogue.models.get(name)
            active = document.active if document is not None else None
            if active == run.rollout.spec.version or active is None:
                why = f"{active or 'no version'} is active: there is nothing left to roll out"
                async with run.lock:
                    await self.ending.end(
                        run, entered(run.status, "failed", "superseded", why), why
                    )
                continue
            run.become(stable=active, instances=self._catalogue.instances(name, active))
            self._book.current[name] = run

    def sample_traffic(self) -> None:
        """Once in a while: so that a plan can tell the traffic of the last minute."""
        models = self._catalogue.models.items()
        self._feeds.sample((name, model.active) for name, model in models if model.active)

    def running(self, model: str) -> RolloutView | None:
        """The rollout that divides or is about to divide the model's requests, if any."""
        return self.shown.running(model)

    def ends(self) -> dict[tuple[str, str, str, str], int]:
        """Rollouts that are over, by (model, strategy, phase, reason)."""
        return self._book.ends()

    # --- what the node says

    def _counted(self, message: Counted) -> None:
        if not self._book.loaded:
            self._early.append(message)
            return
        by_test: dict[str, list[Any]] = {}
        for window in message.windows:
            by_test.setdefault(window.test, []).append(window)
        for test, windows in by_test.items():
            run = self._book.tested(test)
            if run is not None:
                run.count(windows, self._node.snapshot.run, message.sequence)
        self._saving.sequence = max(self._saving.sequence, message.sequence)

    def _trip(self, message: Tripped) -> None:
        """A worker's breaker; the supervisor has taken the candidate out already."""
        if not self._book.loaded:
            self._tripped.append(message)
            return
        run = self._book.tested(message.test)
        if run is not None and not run.rollout.final:
            run.breaker = message.reason
            run.showing = None
            self._news.hurry()
