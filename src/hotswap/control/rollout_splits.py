"""How rollouts divide their models' requests: the splits that route tables are made with."""

from __future__ import annotations

from hotswap.control.exposing import needed, split_for, stage_of
from hotswap.control.node import Node
from hotswap.control.rollout_book import Book
from hotswap.control.rollout_run import Run
from hotswap.core.evidence import opened
from hotswap.core.rollout import Exposure
from hotswap.core.routing import Split
from hotswap.core.windows import WINDOW_NS
from hotswap.ports import Clock

_WARM_SECONDS = 1.0


class Splits:
    """What `hotswap.control.routes.Routes` asks when it makes a table."""

    def __init__(self, node: Node, book: Book, clock: Clock) -> None:
        self._node = node
        self._book = book
        self._clock = clock

    def split_of(self, model: str, stable: str | None) -> Split | None:
        """The split of a table with that stable version: what is saved and has capacity."""
        if not self._book.loaded:
            table = self._node.tables.get(model)
            return table.split if table is not None and table.stable == stable else None
        run = self._book.current.get(model)
        if run is None:
            return None
        rollout, state, before = run.rollout, run.status.state, run.rollout.stable
        if before is None:
            return None
        if state == "promoting" and stable == rollout.spec.version:
            # The flip and the first of the bake are one table: no request sees anything between.
            exposure = Exposure(run.status.stage + 1, weight=10_000, bake=True)
            self.open_stage(run, exposure)
            return split_for(rollout, exposure, [])
        exposure_now = run.showing
        if exposure_now is None or exposure_now.bake != (stable == rollout.spec.version):
            return None
        if not exposure_now.bake and stable != before:
            return None
        twins = self._node.warm(model, before, twin=True)
        if exposure_now.twin and len(twins) < needed(rollout, exposure_now)[1]:
            table = self._node.tables.get(model)
            split = table.split if table is not None else None
            return split if split is not None and split.test == rollout.test else None
        return split_for(rollout, exposure_now, twins)

    def held(self, model: str, version: str) -> bool:
        """Whether a running rollout needs that version warm."""
        run = self._book.current.get(model)
        if run is None or run.rollout.final or run.status.state in ("queued", "watching"):
            return False
        return version in (run.rollout.spec.version, run.rollout.stable)

    def open_stage(self, run: Run, exposure: Exposure) -> None:
        """A stage to count in, before anything can be counted in it."""
        if run.rollout.evidence.stage(exposure.stage) is None:
            now = self._clock.monotonic()
            warm_from = int((now + _WARM_SECONDS) * 1e9) // WINDOW_NS
            stage = stage_of(exposure, warm_from)
            run.become(evidence=opened(run.rollout.evidence, stage))
