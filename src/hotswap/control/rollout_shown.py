"""What clients are shown of rollouts."""

from __future__ import annotations

from hotswap.control.catalogue import Catalogue
from hotswap.control.exposing import exposure_of
from hotswap.control.node import Node
from hotswap.control.rollout_book import Book
from hotswap.control.rollout_observed import Observer
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_store import RolloutStore
from hotswap.core.rollout import analysed
from hotswap.core.rollout_view import rollout_view
from hotswap.core.rollout_views import JournalView, RolloutView


class Shown:
    """Reads only. Entries of journals come from the store, all else from memory."""

    def __init__(
        self,
        node: Node,
        catalogue: Catalogue,
        store: RolloutStore,
        book: Book,
        observer: Observer,
    ) -> None:
        self._node = node
        self._catalogue = catalogue
        self._store = store
        self._book = book
        self._observer = observer

    def view(self, run: Run, *, metrics: bool = True) -> RolloutView:
        """As clients are shown it, with what its metrics say now or without."""
        rollout = run.rollout
        table = self._node.tables.get(rollout.spec.model)
        analysis = None
        if metrics and rollout.status.state != "queued":
            seen = self._observer.observe(run)
            analysis = analysed(rollout, seen)
        exposed = exposure_of(table, rollout)
        active = table.stable if table is not None else None
        series = run.document.series if metrics else ()
        return rollout_view(rollout, analysis, run.document.history, exposed, active, series)

    async def all(self, model: str | None = None) -> list[RolloutView]:
        """Newest first, without their metrics' details."""
        runs = sorted(self._book.runs.values(), key=lambda run: -run.rollout.created_at)
        if model is not None:
            self._catalogue.model(model)
            runs = [run for run in runs if run.rollout.spec.model == model]
        return [self.view(run, metrics=False) for run in runs]

    async def get(self, id: str) -> RolloutView:
        """With all of it."""
        return self.view(self._book.find(id))

    def gauges(self) -> list[RolloutView]:
        """Each model's latest, without metrics."""
        latest: dict[str, Run] = {}
        for run in self._book.runs.values():
            name = run.rollout.spec.model
            other = latest.get(name)
            if other is None or other.rollout.created_at <= run.rollout.created_at:
                latest[name] = run
        return [self.view(run, metrics=False) for run in latest.values()]

    async def journal(self, id: str) -> list[JournalView]:
        """Every entry, oldest first."""
        run = self._book.find(id)
        entries = await self._store.journal(id, run.pending)
        return [entry.view() for entry in entries]

    def running(self, model: str) -> RolloutView | None:
        """The rollout that divides or is about to divide the model's requests, if any."""
        run = self._book.current.get(model)
        if run is None or run.rollout.final or run.status.state == "watching":
            return None
        return self.view(run, metrics=False)
