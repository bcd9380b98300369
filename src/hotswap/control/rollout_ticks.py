"""Carrying rollouts out: observe, decide, save, then act; lowering exposure first of all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import msgspec
import structlog

from hotswap.control.catalogue import Catalogue
from hotswap.control.events import Events
from hotswap.control.exposing import exposure_of, needed, split_for, stage_of
from hotswap.control.node import Node
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_store import RolloutStore
from hotswap.control.routes import Routes
from hotswap.control.switching import Switching
from hotswap.core.decide import decide
from hotswap.core.evidence import opened
from hotswap.core.journal import Entry, Record
from hotswap.core.lifecycle import rollback_target
from hotswap.core.metric_view import metric_views
from hotswap.core.phases import phase, reason
from hotswap.core.rollout import FINAL, Decision, Exposure, Observation, Rollout
from hotswap.core.rollout_views import HistoryView
from hotswap.core.routing import Split
from hotswap.core.windows import WINDOW_NS
from hotswap.errors import HotswapError, StoreError
from hotswap.ports import Clock

log = structlog.get_logger("hotswap.control")

_SAVE_SECONDS = 2.0
_WARM_SECONDS = 1.0
_HISTORY = 500

Served = Callable[[str, str], tuple[int, int]]


class RolloutTicks:
    """Everything that happens to running rollouts of itself. All of it on control's loop."""

    def __init__(
        self,
        node: Node,
        catalogue: Catalogue,
        routes: Routes,
        switching: Switching,
        store: RolloutStore,
        events: Events,
        clock: Clock,
        served: Served,
    ) -> None:
        self.runs: dict[str, Run] = {}
        #: model -> the run whose split its tables have
        self.current: dict[str, Run] = {}
        self.sequence = 0
        self._node = node
        self._catalogue = catalogue
        self._routes = routes
        self._switching = switching
        self._store = store
        self._events = events
        self._clock = clock
        self._served = served
        self._saving = asyncio.Lock()
        self._told = 0

    # --- what tables show

    def split_of(self, model: str, stable: str | None) -> Split | None:
        """The split of a table with that stable version: what is saved and has capacity."""
        run = self.current.get(model)
        if run is None:
            return None
        rollout, state, before = run.rollout, run.status.state, run.rollout.stable
        if before is None:
            return None
        if state == "promoting" and stable == rollout.spec.version:
            # The flip and the first of the bake are one table: no request sees anything between.
            exposure = Exposure(run.status.stage + 1, weight=10_000, bake=True)
            self._open(run, exposure)
            return split_for(rollout, exposure, [])
        exposure_now = run.showing
        if exposure_now is None or exposure_now.bake != (stable == rollout.spec.version):
            return None
        if not exposure_now.bake and stable != before:
            return None
        twins = self._node.warm(model, before, twin=True)
        if exposure_now.twin and len(twins) < needed(rollout, exposure_now)[1]:
            table = self._node.tables.get(model)
            return table.split if table is not None else None
        return split_for(rollout, exposure_now, twins)

    def held(self, model: str, version: str) -> bool:
        """Whether a running rollout needs that version warm."""
        run = self.current.get(model)
        if run is None or run.rollout.final or run.status.state in ("queued", "watching"):
            return False
        return version in (run.rollout.spec.version, run.rollout.stable)

    def _open(self, run: Run, exposure: Exposure) -> None:
        """A stage to count in, before anything can be counted in it."""
        if run.rollout.evidence.stage(exposure.stage) is None:
            now = self._clock.monotonic()
            warm_from = int((now + _WARM_SECONDS) * 1e9) // WINDOW_NS
            stage = stage_of(exposure, warm_from)
            run.become(evidence=opened(run.rollout.evidence, stage))

    # --- ticks

    async def tick(self) -> None:
        """Every rollout that is not over, once."""
        for run in list(self.runs.values()):
            if not run.rollout.final or not run.closed:
                try:
                    async with run.lock:
                        await self.advance(run)
                except HotswapError as exc:
                    log.warning("a rollout waits", rollout=run.rollout.id, reason=str(exc))
        await self.save_due()

    async def advance(self, run: Run) -> None:
        """One rollout: observe, decide, save, act."""
        now = self._clock.monotonic()
        seconds = 0.0 if run.ticked_at is None else now - run.ticked_at
        run.ticked_at = now
        if run.breaker and run.showing is not None:
            self.lower(run)
        seen = self.observe(run)
        before = run.rollout
        decision = decide(before, seen, seconds)
        if decision.analysis is not None:
            run.analysis = decision.analysis
        if decision.moved:
            await self._move(run, before, decision, seen, seconds)
        else:
            run.become(status=decision.status)
        await self._act(run)

    def observe(self, run: Run) -> Observation:
        """What is so now, for this rollout."""
        rollout = run.rollout
        name, version = rollout.spec.model, rollout.spec.version
        document = self._catalogue.models.get(name)
        table = self._node.tables.get(name)
        active = table.stable if table is not None else None
        status = rollout.status
        ready, lacking = self._capacity(rollout)
        blocked = status.state == "queued" and self.current.get(name) not in (None, run)
        target = None
        if document is not None:
            target = rollback_target(document, self._catalogue.registered(name))
        if status.state == "watching":
            run.served = self._served(name, version)
        restarts = sum(s.restarts for s in self._node.warm(name, version)) - run.restarts_before
        elapsed = max(1.0, status.elapsed)
        counted = sum(s.candidate.requests + s.stable.requests for s in rollout.evidence.stages)
        return Observation(
            exposed=exposure_of(table, rollout),
            active=active,
            ready=ready,
            lacking=lacking,
            load_error=run.load_error,
            restarts=max(0, restarts),
            breaker=run.breaker,
            outage=run.outage,
            blocked=blocked,
            served=run.served,
            target=target,
            rate=counted / elapsed,
            readings=dict(run.readings),
        )

    def _capacity(self, rollout: Rollout) -> tuple[bool, str]:
        """Whether there are warm hosts for what is wanted, and what is missing."""
        name, version = rollout.spec.model, rollout.spec.version
        wanted, twins = needed(rollout, rollout.status.exposure)
        there = [s for s in self._node.warm(name, version) if s.state == "ready"]
        if len(there) < wanted:
            return False, f"{len(there)} of {wanted} hosts of {version} are warm"
        if twins and rollout.stable is not None:
            warm = self._node.warm(name, rollout.stable, twin=True)
            ready = [s for s in warm if s.state == "ready"]
            if len(ready) < twins:
                return False, f"{len(ready)} of {twins} twin hosts of {rollout.stable} are warm"
        return True, ""

    async def _move(
        self, run: Run, before: Rollout, decision: Decision, seen: Observation, seconds: float
    ) -> None:
        """Save what was decided before anything of it happens; but lower exposure first."""
        status = decision.status
        lowering = status.exposure is None or status.state == "rolling_back"
        if lowering:
            self.lower(run)
        after = msgspec.structs.replace(run.rollout, status=status, updated_at=self._clock.wall())
        analysis = decision.analysis
        metrics = metric_views(before, analysis) if analysis is not None else ()
        record = Record(before, status, seen, seconds, metrics=metrics)
        saved = await self.record(run, after, "decided", record, must=not lowering)
        if saved or lowering:
            self.tell(run)

    async def record(
        self,
        run: Run,
        after: Rollout,
        kind: str,
        record: Record,
        *,
        must: bool,
        who: str = "",
        command: str = "",
        why: str = "",
        key: str = "",
    ) -> bool:
        """Write down a decision or command and take it on. ``must``: not taken on unless saved."""
        async with self._saving:
            document = run.document
            number = document.entries + 1
            entry = Entry(number, self._clock.wall(), kind, record, who, command, why, key)
            line = HistoryView(
                entry.at, phase(after.status), reason(after.status), after.status.message,
                after.status.step,
            )  # fmt: skip
            # What was counted while this waited for its turn belongs to it; all up to the sequence.
            counted = run.rollout.evidence if run.rollout.test == after.test else after.evidence
            evidence = msgspec.structs.replace(
                counted, run=self._node.snapshot.run, sequence=self.sequence
            )
            changed = msgspec.structs.replace(
                document,
                rollout=msgspec.structs.replace(after, evidence=evidence),
                history=(*document.history, line)[-_HISTORY:],
            )
            try:
                saved = await self._store.save(changed, run.units, entry)
            except StoreError as exc:
                run.outage = f"the store cannot be written: {exc}"
                log.error("a rollout cannot be saved", rollout=after.id, reason=str(exc))
                if must:
                    return False
                # Taken on all the same: it only lowers. It is written down when that is possible.
                run.document = msgspec.structs.replace(
                    changed, entries=number, last=entry, units=run.document.units
                )
                run.dirty = True
                return True
            run.outage = ""
            run.document = msgspec.structs.replace(
                saved, rollout=self._latest(run, document.rollout, saved.rollout)
            )
            run.dirty = run.document.rollout is not saved.rollout
            return True

    def _latest(self, run: Run, before: Rollout, saved: Rollout) -> Rollout:
        """What was saved, with what was counted while it was being saved."""
        now = run.document.rollout
        if now.evidence is before.evidence or before.test != saved.test:
            return saved
        return msgspec.structs.replace(saved, evidence=now.evidence)

    async def save_due(self) -> None:
        """Counters and clocks of rollouts that only go on, every two seconds."""
        now = self._clock.monotonic()
        sequence = self.sequence  # what comes while this saves is told the next time
        every = _SAVE_SECONDS * max(1.0, len(self.current) / 100)
        waiting = False
        for run in self.runs.values():
            if not run.dirty:
                continue
            if now - run.saved_at < every:
                waiting = True
                continue
            run.saved_at = now
            waiting = not await self._save(run) or waiting
        if not waiting and sequence > self._told:
            self._told = sequence
            self._node.counted_saved(sequence)

    async def _save(self, run: Run) -> bool:
        async with self._saving:
            before = run.document
            evidence = run.noted(self._node.snapshot.run, self.sequence)
            rollout = msgspec.structs.replace(before.rollout, evidence=evidence)
            document = msgspec.structs.replace(before, rollout=rollout)
            try:
                saved = await self._store.save(document, run.units, None)
            except StoreError as exc:
                run.outage = f"the store cannot be written: {exc}"
                return False
            run.outage = ""
            if run.document is before:
                run.document, run.dirty = saved, False
            else:
                run.document = msgspec.structs.replace(run.document, units=saved.units)
            return True

    # --- effects: each compares what should be with what is

    def lower(self, run: Run) -> None:
        """Take the candidate out of the route at once; nothing is waited for."""
        run.showing = None
        table = self._node.tables.get(run.rollout.spec.model)
        if table is not None and table.split is not None and table.split.test == run.rollout.test:
            self._node.stable_only(table.index)

    async def _act(self, run: Run) -> None:
        rollout, state = run.rollout, run.status.state
        name = rollout.spec.model
        table = self._node.tables.get(name)
        active = table.stable if table is not None else None
        if state in ("preparing", "running", "promoting", "baking"):
            run.begin("hosts", self._hosts(run))
        if state == "promoting" and active != rollout.spec.version:
            run.begin("flip", self._flip(run))
        elif state == "rolling_back" and active == rollout.spec.version:
            run.begin("flip", self._return(run))
        elif state in ("running", "baking"):
            await self._show(run)
        elif exposure_of(table, rollout) is not None and state not in ("preparing", "promoting"):
            run.showing = None
            await self._republish(name)
        if state in FINAL:
            await self._over(run)

    async def _show(self, run: Run) -> None:
        """Make the table show what is wanted, once it is saved and there is capacity."""
        wanted = run.status.exposure
        table = self._node.tables.get(run.rollout.spec.model)
        if wanted is None or exposure_of(table, run.rollout) == wanted:
            run.showing = wanted
            return
        if run.breaker or run.outage or not self._capacity(run.rollout)[0]:
            return
        self._open(run, wanted)
        run.showing = wanted
        await self._republish(run.rollout.spec.model)

    async def _republish(self, name: str) -> None:
        async with self._routes.lock(name):
            await self._routes.republish(name)

    async def _hosts(self, run: Run) -> None:
        """Warm hosts for what is wanted, started before any table names them."""
        rollout = run.rollout
        name, version = rollout.spec.model, rollout.spec.version
        wanted, twins = needed(rollout, run.status.exposure)
        document = self._catalogue.models.get(name)
        if document is None:
            return
        try:
            await self._routes.warm(name, version, document.signature, wanted)
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
            log.error("a rollback waits", rollout=run.rollout.id, reason=str(exc))

    async def _over(self, run: Run) -> None:
        """It is over: what it held is let go, and the next in line may begin."""
        rollout = run.rollout
        name, version = rollout.spec.model, rollout.spec.version
        if self.current.get(name) is run:
            del self.current[name]
        for each in (version, rollout.stable):
            if each is not None:
                self._routes.warming.forget_least(name, each)
        if rollout.stable is not None:
            table = self._node.tables.get(name)
            named = table.hosts() if table is not None else set()
            for state in self._node.warm(name, rollout.stable, twin=True):
                if state.spec.host not in named:
                    self._node.leave(state.spec)
        if run.status.state == "rolled_back" and run.status.reason not in ("aborted", "superseded"):
            with contextlib.suppress(HotswapError):
                await self._catalogue.amend(
                    name,
                    lambda now: msgspec.structs.replace(
                        now, rolled_back=tuple(sorted({*now.rolled_back, version}))
                    ),
                    lowering=True,
                )
        self._routes.warm_until.setdefault((name, version), self._clock.monotonic() + 60.0)
        run.closed = True

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
