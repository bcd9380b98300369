"""What rollouts do to tables, hosts and flips: each effect compares what should be with what is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import structlog

from hotswap.control.catalogue import Catalogue
from hotswap.control.exposing import exposure_of, wanted
from hotswap.control.node import Node
from hotswap.control.rollout_book import Book
from hotswap.control.rollout_observed import Observer
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_saving import Saving
from hotswap.control.rollout_splits import Splits
from hotswap.control.routes import Routes
from hotswap.control.switching import Switching
from hotswap.core.lifecycle import rollback_target
from hotswap.core.rollout import FINAL, Rollout, Status
from hotswap.core.routing import RouteTable
from hotswap.errors import HotswapError
from hotswap.ports import Clock

log = structlog.get_logger("hotswap.control")

#: Between two tries of a flip that failed.
_FLIP_SECONDS = 2.0


class Effects:
    """All of it on control's loop; under a run's lock, but for `lower`."""

    def __init__(
        self,
        node: Node,
        catalogue: Catalogue,
        routes: Routes,
        switching: Switching,
        saving: Saving,
        clock: Clock,
        book: Book,
        observer: Observer,
        splits: Splits,
    ) -> None:
        self._node = node
        self._catalogue = catalogue
        self._routes = routes
        self._switching = switching
        self._saving = saving
        self._clock = clock
        self._book = book
        self._observer = observer
        self._splits = splits

    def lower(self, run: Run) -> None:
        """Take the candidate out of the route at once; nothing is waited for."""
        run.showing = None
        rollout = run.rollout
        table = self._node.tables.get(rollout.spec.model)
        if table is not None and table.split is not None and table.split.test == rollout.test:
            self._node.stable_only(table.index)
        if rollout.status.state in ("promoting", "rolling_back"):
            self._switching.give_up(rollout.spec.model, rollout.spec.version)

    def due(self, run: Run) -> bool:
        """Whether something is not as it should be, so that `act` has work."""
        rollout, state = run.rollout, run.status.state
        table = self._node.tables.get(rollout.spec.model)
        if state in FINAL or state in ("promoting", "rolling_back"):
            return True
        exposed = exposure_of(table, rollout)
        if state in ("preparing", "running", "baking") and (
            run.load_error or not self._observer.capacity(rollout)[0]
        ):
            return True
        if state in ("running", "baking"):
            return exposed != run.status.exposure or self._stale(run, table)
        return exposed is not None and state != "preparing"

    async def act(self, run: Run) -> None:
        rollout, state = run.rollout, run.status.state
        name = rollout.spec.model
        table = self._node.tables.get(name)
        active = table.stable if table is not None else None
        ready = self._observer.capacity(rollout)[0]
        if state in ("preparing", "running", "promoting", "baking") and (
            run.load_error or not ready
        ):
            run.begin("hosts", self._hosts(run))
        if state == "promoting":
            if active != rollout.spec.version and ready and not self._saving.outage:
                self._flip_with(run, self._flip)
        elif state == "rolling_back" and active == rollout.spec.version:
            self._flip_with(run, self._return)
        elif state in ("running", "baking"):
            await self._show(run)
        elif exposure_of(table, rollout) is not None and state != "preparing":
            run.showing = None
            await self._republish(name)
        if state in FINAL:
            await self._over(run)

    def _flip_with(self, run: Run, flip: Callable[[Run], Coroutine[Any, Any, None]]) -> None:
        if self._clock.monotonic() >= run.flip_at:
            run.begin("flip", flip(run))

    async def _show(self, run: Run) -> None:
        """Make the table show what is wanted, once it is saved and there is capacity."""
        wanted = run.status.exposure
        table = self._node.tables.get(run.rollout.spec.model)
        if wanted is None or exposure_of(table, run.rollout) == wanted:
            if not run.barred and not run.breaker:
                run.showing = wanted
            if not self._stale(run, table):
                return
        elif (
            run.breaker
            or run.barred
            or self._saving.outage
            or not self._observer.capacity(run.rollout)[0]
        ):
            return
        else:
            self._splits.open_stage(run, wanted)
            run.showing = wanted
        await self._republish(run.rollout.spec.model)

    def _stale(self, run: Run, table: RouteTable | None) -> bool:
        """Whether the table names other hosts of this rollout than those that are warm."""
        rollout = run.rollout
        if table is None:
            return False
        name, version = rollout.spec.model, rollout.spec.version
        for each in (version, rollout.stable):
            entry = table.version(each) if each is not None else None
            if entry is not None:
                warm = {state.spec.host for state in self._node.warm(name, entry.version)}
                if warm != {ref.host for ref in entry.hosts}:
                    return True
        split = table.split
        if split is None or not split.twin or rollout.stable is None:
            return False
        twins = {state.spec.host for state in self._node.warm(name, rollout.stable, twin=True)}
        gone = {ref.host for ref in split.twin} - twins
        return bool(gone) and len(twins) >= len(split.twin)

    async def _republish(self, name: str) -> None:
        async with self._routes.lock(name):
            await self._routes.republish(name)

    async def _hosts(self, run: Run) -> None:
        """Warm hosts for what is wanted, started before any table names them."""
        rollout = run.rollout
        name, version = rollout.spec.model, rollout.spec.version
        hosts, twins = wanted(rollout)
        document = self._catalogue.models.get(name)
        if document is None:
            return
        try:
            await self._routes.warm(name, version, document.signature, hosts)
            run.load_error = ""
        except HotswapError as exc:
            run.load_error = str(exc)
            return
        if twins and rollout.stable is not None:
            with contextlib.suppress(HotswapError):
                stable = self._catalogue.version(name, rollout.stable)
                await self._routes.warming.twins(stable, document.signature, twins)

    async def _flip(self, run: Run) -> None:
        """Promote: one table makes the candidate stable and begins its bake."""
        spec = run.rollout.spec
        try:
            await self._switching.change(spec.model, spec.version, "switch", False, None)
            run.showing = None  # the bake's own exposure follows with the next decision
        except HotswapError as exc:
            run.flip_at = self._clock.monotonic() + _FLIP_SECONDS
            log.error("a promotion waits", rollout=run.rollout.id, reason=str(exc))

    async def _return(self, run: Run) -> None:
        """Back to the version before, by one flip."""
        name = run.rollout.spec.model
        document = self._catalogue.models.get(name)
        if document is None:
            return
        target = run.rollout.stable
        if target is None or target not in self._catalogue.registered(name):
            target = rollback_target(document, self._catalogue.registered(name))
        if target is None:
            return
        try:
            await self._switching.change(name, target, "rollback", False, None)
        except HotswapError as exc:
            run.flip_at = self._clock.monotonic() + _FLIP_SECONDS
            log.error("a rollback waits", rollout=run.rollout.id, reason=str(exc))

    async def _over(self, run: Run) -> None:
        """It is over: what it held is let go, and the next in line may begin."""
        rollout = run.rollout
        name, version = rollout.spec.model, rollout.spec.version
        for work in ("hosts", "flip", "readings"):
            run.cancel(work)
        if self._book.current.get(name) in (None, run):
            self._book.current.pop(name, None)
            self._release(rollout)
        if run.status.state == "rolled_back" and run.status.reason not in ("aborted", "superseded"):
            document = self._catalogue.models.get(name)
            if document is not None and version not in document.rolled_back:
                with contextlib.suppress(HotswapError):
                    await self._catalogue.amend(
                        name,
                        lambda now: msgspec.structs.replace(
                            now, rolled_back=tuple(sorted({*now.rolled_back, version}))
                        ),
                        lowering=True,
                    )
        self._routes.warm_until.setdefault((name, version), self._clock.monotonic() + 60.0)
        await self._saving.forget_units(run)
        run.note(closed=True)

    def _release(self, rollout: Rollout) -> None:
        """Hosts that only this rollout needed."""
        name, stable = rollout.spec.model, rollout.stable
        for each in (rollout.spec.version, stable):
            if each is not None:
                self._routes.warming.forget_least(name, each)
        table = self._node.tables.get(name)
        named = table.hosts() if table is not None else set()
        for state in self._node.warm(name, stable, twin=True) if stable is not None else ():
            if state.spec.host not in named:
                self._node.stop(state.spec.host)


def falls(status: Status) -> bool:
    """The candidate is to answer nothing any more. Not so where it has become the stable version:
    what was stable before would answer again.
    """
    return status.state in ("rolling_back", "rolled_back", "completed", "failed")
