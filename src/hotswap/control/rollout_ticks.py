"""Carrying rollouts out: observe, decide, save, then act; lowering exposure first of all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec
import structlog

from hotswap.control.catalogue import Catalogue
from hotswap.control.events import Events
from hotswap.control.exposing import exposure_of, needed, split_for, stage_of
from hotswap.control.node import Node
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_saving import Saving
from hotswap.control.routes import Routes
from hotswap.control.switching import Switching
from hotswap.core.decide import decide
from hotswap.core.evidence import opened
from hotswap.core.journal import Record
from hotswap.core.lifecycle import rollback_target
from hotswap.core.metric_view import metric_views
from hotswap.core.phases import phase, reason
from hotswap.core.rollout import FINAL, Decision, Exposure, Observation, Rollout, Status
from hotswap.core.routing import RouteTable, Split
from hotswap.core.series import sampled
from hotswap.core.windows import WINDOW_NS
from hotswap.errors import HotswapError
from hotswap.ports import Clock

log = structlog.get_logger("hotswap.control")

_WARM_SECONDS = 1.0
#: So long does a tick wait for stores and flips; what takes longer goes on beside the next ones.
_WAIT_SECONDS = 1.0
#: So long may a tick keep the loop without a pause.
_TURN_SECONDS = 0.02
#: Between two tries of a flip that failed.
_FLIP_SECONDS = 2.0

Served = Callable[[str, str], tuple[int, int]]


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
        node: Node,
        catalogue: Catalogue,
        routes: Routes,
        switching: Switching,
        saving: Saving,
        events: Events,
        clock: Clock,
        served: Served,
    ) -> None:
        self.runs: dict[str, Run] = {}
        #: model -> the run whose split its tables have
        self.current: dict[str, Run] = {}
        #: whether it is known which rollouts there are: until then tables stay as they are
        self.loaded = False
        self._node = node
        self._catalogue = catalogue
        self._routes = routes
        self._switching = switching
        self._saving = saving
        self._events = events
        self._clock = clock
        self._served = served
        self._working: set[asyncio.Task[None]] = set()
        self._saver: asyncio.Task[None] | None = None

    # --- what tables show

    def split_of(self, model: str, stable: str | None) -> Split | None:
        """The split of a table with that stable version: what is saved and has capacity."""
        if not self.loaded:
            table = self._node.tables.get(model)
            return table.split if table is not None and table.stable == stable else None
        run = self.current.get(model)
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
        run = self.current.get(model)
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

    # --- ticks

    async def tick(self) -> None:
        """Every rollout that is not over, once.

        All are looked at before anything is waited for, so that a store or a flip that hangs for
        one of them keeps none from being lowered.
        """
        loop = asyncio.get_running_loop()
        since = loop.time()
        for run in list(self.runs.values()):
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
            seen = self.observe(run)
            status = decide(run.rollout, seen, 0.0).status
            if falls(status) and not falls(run.status):
                run.breaker = run.breaker or status.message  # it stays out, whatever is seen later
                self.lower(run)
            return
        moment = self._decided(run)
        if moment.decision.moved or self._due(run):
            self._begin(self._carried(run, moment))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    async def _save_due(self) -> None:
        try:
            await self._saving.save_due(self.runs, len(self.current))
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
        seen = self.observe(run)
        before = run.rollout
        decision = decide(before, seen, seconds)
        if decision.analysis is not None:
            run.analysis = decision.analysis
            series = sampled(run.document.series, decision.status, decision.analysis)
            if series is not run.document.series:
                run.note(series=series)
        if run.breaker or falls(decision.status):
            self.lower(run)
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
        await self._act(run)

    def observe(self, run: Run) -> Observation:
        """What is so now, for this rollout."""
        rollout = run.rollout
        name, version = rollout.spec.model, rollout.spec.version
        document = self._catalogue.models.get(name)
        table = self._node.tables.get(name)
        status = rollout.status
        ready, lacking = self._capacity(rollout)
        target = None
        if document is not None:
            target = rollback_target(document, self._catalogue.registered(name))
        served = self._served(name, version) if status.state == "watching" else (0, 0)
        now = self._clock.monotonic()
        readings = {
            name: msgspec.structs.replace(reading, age=now - run.read_then[name])
            for name, reading in run.readings.items()
        }
        counted = sum(s.candidate.requests + s.stable.requests for s in rollout.evidence.stages)
        return Observation(
            exposed=exposure_of(table, rollout),
            active=table.stable if table is not None else None,
            ready=ready,
            lacking=lacking,
            load_error=run.load_error,
            restarts=max(0, self.restarts(name, version) - run.document.restarts),
            breaker=run.breaker,
            outage=self._saving.outage,
            blocked=status.state == "queued" and self.current.get(name) not in (None, run),
            served=served,
            target=target,
            rate=counted / max(1.0, status.elapsed),
            readings=readings,
        )

    def restarts(self, model: str, version: str) -> int:
        """How often the processes of a version that are there died."""
        return sum(state.restarts for state in self._node.warm(model, version))

    def _capacity(self, rollout: Rollout) -> tuple[bool, str]:
        """Whether there are warm hosts for what is wanted, and what is missing."""
        name, version = rollout.spec.model, rollout.spec.version
        wanted, twins = _wanted(rollout)
        there = [s for s in self._node.warm(name, version) if s.state == "ready"]
        if len(there) < wanted:
            return False, f"{len(there)} of {wanted} hosts of {version} are warm"
        if twins and rollout.stable is not None:
            warm = self._node.warm(name, rollout.stable, twin=True)
            ready = [s for s in warm if s.state == "ready"]
            if len(ready) < twins:
                return False, f"{len(ready)} of {twins} twin hosts of {rollout.stable} are warm"
        return True, ""

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
            self.tell(run)

    # --- effects: each compares what should be with what is

    def lower(self, run: Run) -> None:
        """Take the candidate out of the route at once; nothing is waited for."""
        run.showing = None
        rollout = run.rollout
        table = self._node.tables.get(rollout.spec.model)
        if table is not None and table.split is not None and table.split.test == rollout.test:
            self._node.stable_only(table.index)
        if rollout.status.state in ("promoting", "rolling_back"):
            self._switching.give_up(rollout.spec.model, rollout.spec.version)

    def _due(self, run: Run) -> bool:
        """Whether something is not as it should be, so that `_act` has work."""
        rollout, state = run.rollout, run.status.state
        table = self._node.tables.get(rollout.spec.model)
        if state in FINAL or state in ("promoting", "rolling_back"):
            return True
        exposed = exposure_of(table, rollout)
        if state in ("preparing", "running", "baking") and (
            run.load_error or not self._capacity(rollout)[0]
        ):
            return True
        if state in ("running", "baking"):
            return exposed != run.status.exposure or self._stale(run, table)
        return exposed is not None and state != "preparing"

    async def _act(self, run: Run) -> None:
        rollout, state = run.rollout, run.status.state
        name = rollout.spec.model
        table = self._node.tables.get(name)
        active = table.stable if table is not None else None
        ready = self._capacity(rollout)[0]
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
        elif run.breaker or run.barred or self._saving.outage or not self._capacity(run.rollout)[0]:
            return
        else:
            self.open_stage(run, wanted)
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
        wanted, twins = _wanted(rollout)
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
        if self.current.get(name) in (None, run):
            self.current.pop(name, None)
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


def _wanted(rollout: Rollout) -> tuple[int, int]:
    """Warm hosts of the candidate, and twins: for what is exposed, or for all before it is stable."""
    if rollout.status.state == "promoting":
        return rollout.instances, needed(rollout, rollout.status.exposure)[1]
    return needed(rollout, rollout.status.exposure)


def falls(status: Status) -> bool:
    """The candidate is to answer nothing any more. Not so where it has become the stable version:
    what was stable before would answer again.
    """
    return status.state in ("rolling_back", "rolled_back", "completed", "failed")


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
