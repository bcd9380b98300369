"""Rollouts as operators ask for them: start, plan, look, command."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog

from hotswap.control.catalogue import Catalogue
from hotswap.control.events import Events
from hotswap.control.exposing import exposure_of
from hotswap.control.node import Node
from hotswap.control.rollout_book import Book
from hotswap.control.rollout_effects import Effects, falls
from hotswap.control.rollout_events import tell
from hotswap.control.rollout_feeds import Feeds
from hotswap.control.rollout_observed import Observer
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_saving import Saving
from hotswap.control.rollout_splits import Splits
from hotswap.control.rollout_start import begun
from hotswap.control.rollout_store import Document, RolloutStore
from hotswap.control.rollout_ticks import RolloutTicks
from hotswap.control.routes import Routes
from hotswap.control.switching import Switching
from hotswap.core.commands import COMMANDS, commanded, refusal
from hotswap.core.decide import entered, returned
from hotswap.core.journal import Record
from hotswap.core.phases import phase
from hotswap.core.preflight import preflight
from hotswap.core.rollout import EXPOSED, FINAL, Rollout, Status, analysed
from hotswap.core.rollout_view import rollout_view
from hotswap.core.rollout_views import JournalView, PlanView, RolloutView
from hotswap.core.stats import ModelStats
from hotswap.core.strategy import RolloutDefaults, RolloutSpec, parse
from hotswap.errors import BadInput, Conflict, StoreError
from hotswap.ipc.messages import Counted, Tripped
from hotswap.ports import Clock, MetricSource, Store

log = structlog.get_logger("hotswap.control")

#: How long a forced switch waits for a rollout to be back.
_RETURN_SECONDS = 10.0


class Given(msgspec.Struct, frozen=True):
    """A command as an operator gives it. ``generation`` None: whatever it is."""

    command: str
    generation: int | None
    key: str
    force: bool
    why: str
    who: str


class Rollouts:
    """`hotswap.control.interface.Control`'s rollouts. ``stats`` gives the operational counters."""

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
    ) -> None:
        self.events = Events(clock)
        #: whether candidates run on hosts of another kind than stable versions
        self.apart = False
        self._node = node
        self._catalogue = catalogue
        self._routes = routes
        self._clock = clock
        self._stats = stats
        self.defaults = defaults
        self._feeds = Feeds(stats, sources, clock, node.snapshot.started_at)
        self._store = RolloutStore(store)
        self._saving = Saving(node, self._store, clock)
        self._book = Book()
        self._observer = Observer(
            node, catalogue, self._saving, clock, self._book, self._feeds.served
        )
        self._splits = Splits(node, self._book, clock)
        self._effects = Effects(
            node, catalogue, routes, switching, self._saving, clock, self._book, self._observer,
            self._splits,
        )  # fmt: skip
        self._ticks = RolloutTicks(
            self._saving, self.events, clock, self._book, self._observer, self._effects
        )
        self._runs = self._book.runs
        self._starting = asyncio.Lock()
        self._early: list[Counted] = []
        self._tripped: list[Tripped] = []
        self._news = asyncio.Event()
        routes.split_of = self._splits.split_of
        routes.held = self._splits.held
        node.on_counted = self._counted
        node.on_tripped = self._trip

    # --- start and end of control

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
        await self._end(run, returned(run.status, "aborted", why), why)

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
            for run in self._runs.values()
            if not run.rollout.final and run.status.state != "queued"
        )
        await self._begin_queued()
        await self._ticks.tick()
        self._book.forget_old()

    async def wait(self, seconds: float) -> None:
        """Until there is news that cannot wait, at most so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        self._news.clear()

    async def _begin_queued(self) -> None:
        waiting = [run for run in self._runs.values() if run.status.state == "queued"]
        for run in sorted(waiting, key=lambda each: each.rollout.created_at):
            name = run.rollout.spec.model
            if run.lock.locked() or run.status.state != "queued":
                continue
            current = self._book.current.get(name)
            if current is not None and not (current.rollout.final and current.closed):
                if run.rollout.spec.on_running == "replace":
                    await self._replace(run)  # control died before it had come to that
                continue
            document = self._catalogue.models.get(name)
            active = document.active if document is not None else None
            if active == run.rollout.spec.version or active is None:
                why = f"{active or 'no version'} is active: there is nothing left to roll out"
                async with run.lock:
                    await self._end(run, entered(run.status, "failed", "superseded", why), why)
                continue
            run.become(stable=active, instances=self._instances(name, active))
            self._book.current[name] = run

    async def _end(self, run: Run, status: Status, why: str) -> None:
        """What is decided by something else than the machine. Only ever lowers exposure."""
        before = run.rollout
        status = msgspec.structs.replace(status, generation=before.status.generation + 1)
        after = msgspec.structs.replace(before, status=status, updated_at=self._clock.wall())
        await self._saving.record(
            run, after, "superseded", Record(before, status), must=False,
            command="supersede", why=why,
        )  # fmt: skip
        tell(self.events, run)

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
            self._news.set()

    # --- start

    def _check(self, spec: RolloutSpec) -> str:
        """The version that it would begin beside. Raises what an operator must know."""
        document = self._catalogue.model(spec.model)
        self._catalogue.version(spec.model, spec.version)
        if document.active is None:
            raise Conflict(
                f"model {spec.model!r} has no active version to roll out from: "
                f"'hotswap switch {spec.model} {spec.version}' activates one"
            )
        if document.active == spec.version:
            raise Conflict(f"version {spec.version!r} of model {spec.model!r} is active already")
        if spec.version in document.rolled_back and not spec.force:
            raise Conflict(
                f"version {spec.version!r} of model {spec.model!r} was rolled back from: give "
                "'force' to roll it out all the same"
            )
        if spec.key_input is not None and document.signature is not None:
            names = [each.name for each in document.signature.inputs]
            if spec.key_input not in names:
                raise BadInput(
                    f"key_input {spec.key_input!r} is no input of model {spec.model!r}: "
                    f"it has {', '.join(names[:20])}"
                )
        missing = self._feeds.missing(spec)
        if missing:
            raise BadInput(
                f"a guardrail asks {missing.pop()}, and none is configured: start the server with "
                "--prometheus-url"
            )
        return document.active

    async def start(self, body: Mapping[str, Any], *, who: str = "") -> RolloutView:
        """See `Control.start_rollout`."""
        spec = parse(body, self.defaults)
        key = body.get("idempotency_key") or ""
        if not isinstance(key, str) or len(key) > 256:
            raise BadInput("idempotency_key must be a string of at most 256 characters")
        if self._book.started_with(key) is None:
            self._check(spec)
            await self._feeds.try_queries(spec)
        # Shielded: a client that goes away does not undo what it asked for.
        return await asyncio.shield(asyncio.ensure_future(self._start(spec, key, who)))

    async def _start(self, spec: RolloutSpec, key: str, who: str) -> RolloutView:
        async with self._starting:
            earlier = self._book.started_with(key)
            if earlier is not None:
                return self._repeated(earlier, spec)
            stable = self._check(spec)
            current = self._book.current.get(spec.model)
            if current is not None and current.status.state == "watching":
                await self._end_watch(current)
                current = self._book.current.get(spec.model)
            if current is not None and current.rollout.final and current.closed:
                current = None
            if current is not None and spec.on_running == "refuse":
                raise Conflict(_beside(current))
            queued = current is not None
            rollout = begun(
                secrets.token_hex(5), spec, stable, self._instances(spec.model, stable),
                self._stats(), self._begun_at(), key, queued=queued,
            )  # fmt: skip
            if self.apart:
                rollout = msgspec.structs.replace(rollout, apart=True)
            run = Run(Document(rollout, restarts=self._observer.restarts(spec.model, spec.version)))
            # Not among the others before it is saved: nothing of it may happen until then.
            record = Record(rollout, rollout.status)
            if not await self._saving.record(run, rollout, "started", record, must=True, who=who):
                raise StoreError(f"the rollout was not started: {self._saving.outage}")
            self._book.add(run)
            if not queued:
                self._book.current[spec.model] = run
            tell(self.events, run)
            if queued and spec.on_running == "replace":
                await self._replace(run)
            self._news.set()
        return self._view(run)

    def _begun_at(self) -> float:
        """Unix time, and after all that began before: it is also their order."""
        last = max((run.rollout.created_at for run in self._runs.values()), default=0.0)
        return max(self._clock.wall(), last + 1e-3)

    def _repeated(self, run: Run, spec: RolloutSpec) -> RolloutView:
        if run.rollout.spec != spec:
            raise Conflict(f"the idempotency key was used for another rollout, {run.rollout.id}")
        return self._view(run)

    async def _replace(self, run: Run) -> None:
        """What runs goes back, and what waits does not begin: this one comes instead of them."""
        name = run.rollout.spec.model
        await self.supersede(name, "another rollout replaces it")
        why = "another rollout replaced it before it began"
        for other in list(self._runs.values()):
            waits = other.rollout.spec.model == name and other.status.state == "queued"
            if waits and other.rollout.created_at < run.rollout.created_at:
                async with other.lock:
                    if other.status.state == "queued":
                        status = entered(other.status, "rolled_back", "superseded", why)
                        await self._end(other, status, why)

    async def _end_watch(self, run: Run) -> None:
        async with run.lock:
            if run.status.state == "watching":
                why = "something else begins"
                await self._end(run, entered(run.status, "healthy", "promoted", why), why)
            self._book.current.pop(run.rollout.spec.model, None)

    def _instances(self, model: str, stable: str) -> int:
        return self._catalogue.version(model, stable).record.settings.instances

    async def plan(self, body: Mapping[str, Any]) -> PlanView:
        """See `Control.plan_rollout`."""
        spec = parse(body, self.defaults)
        stable = self._check(spec)
        await self._feeds.try_queries(spec)
        traffic = self._feeds.traffic(spec.model, stable)
        return preflight(spec, dict(body), stable, traffic.per_second, traffic.error_rate)

    def sample_traffic(self) -> None:
        """Once in a while: so that a plan can tell the traffic of the last minute."""
        models = self._catalogue.models.items()
        self._feeds.sample((name, model.active) for name, model in models if model.active)

    # --- look

    def _view(self, run: Run, *, metrics: bool = True) -> RolloutView:
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
        runs = sorted(self._runs.values(), key=lambda run: -run.rollout.created_at)
        if model is not None:
            self._catalogue.model(model)
            runs = [run for run in runs if run.rollout.spec.model == model]
        return [self._view(run, metrics=False) for run in runs]

    async def get(self, id: str) -> RolloutView:
        """With all of it."""
        return self._view(self._book.find(id))

    def gauges(self) -> list[RolloutView]:
        """Each model's latest, without metrics."""
        latest: dict[str, Run] = {}
        for run in self._runs.values():
            name = run.rollout.spec.model
            other = latest.get(name)
            if other is None or other.rollout.created_at <= run.rollout.created_at:
                latest[name] = run
        return [self._view(run, metrics=False) for run in latest.values()]

    def ends(self) -> dict[tuple[str, str, str, str], int]:
        """Rollouts that are over, by (model, strategy, phase, reason)."""
        return self._book.ends()

    async def journal(self, id: str) -> list[JournalView]:
        """Every entry, oldest first."""
        run = self._book.find(id)
        entries = await self._store.journal(id, run.pending)
        return [entry.view() for entry in entries]

    # --- commands

    async def command(
        self,
        id: str,
        command: str,
        *,
        generation: int | None = None,
        idempotency_key: str | None = None,
        force: bool = False,
        why: str = "",
        who: str = "",
    ) -> RolloutView:
        """See `Control.command_rollout`."""
        run = self._book.find(id)
        if command not in COMMANDS:
            raise BadInput(f"there is no command {command!r}: use {', '.join(COMMANDS)}")
        given = Given(command, generation, idempotency_key or "", force, why, who)
        # Shielded: a client that goes away does not undo what it asked for.
        return await asyncio.shield(asyncio.ensure_future(self._obey(run, given)))

    async def _obey(self, run: Run, given: Given) -> RolloutView:
        command, status = given.command, run.status
        mine = object()
        if (
            command == "abort"
            and given.generation in (None, status.generation)
            and status.state in (*EXPOSED, "preparing", "rolling_back")
        ):
            # At once: whoever holds the lock may wait for the store.
            run.barred.add(mine)
            self._effects.lower(run)
        try:
            async with run.lock:
                await self._commanded(run, given)
        finally:
            run.barred.discard(mine)
        self._news.set()
        return self._view(run)

    async def _commanded(self, run: Run, given: Given) -> None:
        command, before, key = given.command, run.rollout, given.key
        if key and key in run.document.commands:
            if run.document.commands[key] != command:
                raise refusal(before, command, "this idempotency key was used for another command")
            return
        if given.generation not in (None, before.status.generation):
            raise refusal(before, command, f"generation {given.generation} is not the present one")
        if command == "retry":
            self._check_retry(run)
        seen = self._observer.observe(run)
        analysis = analysed(before, seen)
        after = commanded(before, command, analysis, force=given.force, why=given.why)
        if after is before:
            return
        if command == "retry":
            after = self._another_attempt(run, after)
        record = Record(before, after.status, seen, force=given.force)
        saved = await self._saving.record(
            run, msgspec.structs.replace(after, updated_at=self._clock.wall()), "commanded", record,
            must=command != "abort", who=given.who, command=command, why=given.why, key=key,
        )  # fmt: skip
        if not saved:
            raise StoreError(f"the command was not carried out: {self._saving.outage}")
        if command == "retry":
            run.forget()
            model, version = run.rollout.spec.model, run.rollout.spec.version
            run.note(restarts=self._observer.restarts(model, version))
            self._book.current[model] = run
        tell(self.events, run)
        if falls(run.status):
            self._effects.lower(run)

    def _check_retry(self, run: Run) -> None:
        name = run.rollout.spec.model
        current = self._book.current.get(name)
        if current is not None and current is not run and not current.rollout.final:
            if current.status.state == "watching":
                why = f"rollout {current.rollout.id} of the model is watched"
                raise refusal(run.rollout, "retry", why)
            raise refusal(run.rollout, "retry", f"rollout {current.rollout.id} of the model runs")
        document = self._catalogue.model(name)
        self._catalogue.version(name, run.rollout.spec.version)
        active = document.active
        if active is None or active == run.rollout.spec.version:
            raise refusal(run.rollout, "retry", f"{active or 'no version'} is active")

    def _another_attempt(self, run: Run, after: Rollout) -> Rollout:
        document = self._catalogue.model(run.rollout.spec.model)
        assert document.active is not None
        seed = run.rollout.spec.seed
        fresh = secrets.token_hex(8) if seed is None else f"{seed}.{after.status.attempt}"
        status = msgspec.structs.replace(after.status, salt=fresh)
        return msgspec.structs.replace(
            after,
            status=status,
            stable=document.active,
            instances=self._instances(document.name, document.active),
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
        return self._view(run, metrics=False)

    def running(self, model: str) -> RolloutView | None:
        """The rollout that divides or is about to divide the model's requests, if any."""
        run = self._book.current.get(model)
        if run is None or run.rollout.final or run.status.state == "watching":
            return None
        return self._view(run, metrics=False)

    async def supersede(self, model: str, why: str) -> None:
        """Take back the running rollout of a model: something else is about to happen to it."""
        run = self._book.current.get(model)
        if run is None or run.rollout.final or run.status.state == "rolling_back":
            return
        if run.status.state == "watching":
            await self._end_watch(run)
            return
        mine = object()
        run.barred.add(mine)
        self._effects.lower(run)
        try:
            async with run.lock:
                if run.status.state in (*FINAL, "rolling_back"):
                    return  # meanwhile
                await self._end(run, returned(run.status, "superseded", why), why)
        finally:
            run.barred.discard(mine)
        self._news.set()

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
        for run in list(self._runs.values()):
            if run.rollout.spec.model == model and not run.rollout.final:
                async with run.lock:
                    status = entered(run.status, "rolled_back", "superseded", why)
                    status = msgspec.structs.replace(status, exposure=None)
                    await self._end(run, status, why)

    def unwanted(self, model: str, version: str) -> bool:
        """Whether a flip to that version is not to be finished: its rollout goes back meanwhile."""
        run = self._book.current.get(model)
        return (
            run is not None
            and run.rollout.spec.version == version
            and run.status.state == "rolling_back"
        )


def _beside(current: Run) -> str:
    spec = current.rollout.spec
    return (
        f"rollout {current.rollout.id} of model {spec.model!r} to {spec.version!r} is "
        f"{phase(current.status)}: abort it, or give on_running 'replace' or 'queue'"
    )
