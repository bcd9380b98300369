"""Rollouts as operators ask for them: start, plan, look, command."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from hotswap.control.catalogue import Catalogue
from hotswap.control.events import Events
from hotswap.control.exposing import exposure_of
from hotswap.control.node import Node
from hotswap.control.rollout_run import Run
from hotswap.control.rollout_start import Traffic, begun, traffic_of
from hotswap.control.rollout_store import Document, RolloutStore
from hotswap.control.rollout_ticks import RolloutTicks
from hotswap.control.routes import Routes
from hotswap.control.switching import Switching
from hotswap.core.analysis import Reading
from hotswap.core.commands import COMMANDS, commanded, refusal
from hotswap.core.decide import entered, returned
from hotswap.core.journal import Record
from hotswap.core.phases import phase, reason
from hotswap.core.preflight import preflight
from hotswap.core.rollout import FINAL, Rollout, analysed
from hotswap.core.rollout_view import rollout_view
from hotswap.core.rollout_views import JournalView, PlanView, RolloutView
from hotswap.core.stats import ModelStats
from hotswap.core.strategy import RolloutSpec, parse
from hotswap.errors import BadInput, Conflict, HotswapError, MetricsUnavailable, NotFound
from hotswap.ipc.messages import Counted, Tripped
from hotswap.ports import Clock, MetricSource, Store

log = structlog.get_logger("hotswap.control")

_READ_SECONDS = 10.0
#: Rollouts that are over and still kept in memory, to be shown.
_OVER = 500


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
    ) -> None:
        self.events = Events(clock)
        self._node = node
        self._catalogue = catalogue
        self._routes = routes
        self._clock = clock
        self._stats = stats
        self._sources = sources
        self._store = RolloutStore(store)
        self._ticks = RolloutTicks(
            node, catalogue, routes, switching, self._store, self.events, clock, self._served
        )
        self._runs = self._ticks.runs
        self._keys: dict[str, str] = {}
        self._starting = asyncio.Lock()
        self._traffic: dict[str, tuple[float, Traffic, float]] = {}
        self._early: list[Counted] = []
        self._tripped: list[Tripped] = []
        self._loaded = False
        self._news = asyncio.Event()
        routes.split_of = self._ticks.split_of
        routes.held = self._ticks.held
        node.on_counted = self._counted
        node.on_tripped = self._trip

    # --- start and end of control

    async def load(self) -> None:
        """Read what is stored; go on where it was. Raises `StoreError`."""
        run_now = self._node.snapshot.run
        for document, units in await self._store.load():
            rollout = document.rollout
            table = self._node.tables.get(rollout.spec.model)
            run = Run(document, units)
            self._runs[rollout.id] = run
            if rollout.idempotency_key:
                self._keys[rollout.idempotency_key] = rollout.id
            exposed = exposure_of(table, rollout)
            if rollout.final:
                run.closed = exposed is None
                continue
            if rollout.status.state != "queued":
                self._ticks.current[rollout.spec.model] = run
            if rollout.status.state in ("running", "promoting", "baking"):
                run.showing = exposed
            if rollout.evidence.run not in ("", run_now) and rollout.status.exposure is not None:
                self._renew_stage(run)
        self._loaded = True
        for tripped in self._tripped:
            self._trip(tripped)
        for counted in self._early:
            self._counted(counted)
        self._early.clear()
        self._tripped.clear()

    def _renew_stage(self, run: Run) -> None:
        """Another supervisor: hosts began anew, so what is counted from here is another stage."""
        status = run.status
        assert status.exposure is not None
        stage = status.stage + 1
        exposure = msgspec.structs.replace(status.exposure, stage=stage)
        run.become(status=msgspec.structs.replace(status, stage=stage, exposure=exposure))

    async def tick(self) -> None:
        """All rollouts, once. Waits for nothing but the store."""
        await self._read_sources()
        self._begin_queued()
        await self._ticks.tick()
        self._forget_old()

    async def wait(self, seconds: float) -> None:
        """Until there is news that cannot wait, at most so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        self._news.clear()

    def _begin_queued(self) -> None:
        waiting = [run for run in self._runs.values() if run.status.state == "queued"]
        for run in sorted(waiting, key=lambda each: each.rollout.created_at):
            name = run.rollout.spec.model
            current = self._ticks.current.get(name)
            if current is None or (current.rollout.final and current.closed):
                document = self._catalogue.models.get(name)
                active = document.active if document is not None else None
                if active == run.rollout.spec.version or active is None:
                    why = f"{active or 'no version'} is active: there is nothing left to roll out"
                    run.become(status=entered(run.status, "failed", "superseded", why))
                    run.closed = True
                    continue
                run.become(stable=active)
                self._ticks.current[name] = run

    def _forget_old(self) -> None:
        over = [run for run in self._runs.values() if run.rollout.final and not run.dirty]
        for run in sorted(over, key=lambda each: each.rollout.created_at)[:-_OVER]:
            del self._runs[run.rollout.id]

    # --- what the node says

    def _counted(self, message: Counted) -> None:
        if not self._loaded:
            self._early.append(message)
            return
        by_test: dict[str, list[Any]] = {}
        for window in message.windows:
            by_test.setdefault(window.test, []).append(window)
        for test, windows in by_test.items():
            run = self._runs.get(test.rpartition(".")[0])
            if run is not None and run.rollout.test == test:
                run.count(windows, self._node.snapshot.run, message.sequence)
        self._ticks.sequence = max(self._ticks.sequence, message.sequence)

    def _trip(self, message: Tripped) -> None:
        """A worker's breaker; the supervisor has taken the candidate out already."""
        if not self._loaded:
            self._tripped.append(message)
            return
        run = self._runs.get(message.test.rpartition(".")[0])
        if run is not None and run.rollout.test == message.test and not run.rollout.final:
            run.breaker = message.reason
            run.showing = None
            self._news.set()

    def _served(self, model: str, version: str) -> tuple[int, int]:
        failed = total = 0
        for each in self._stats():
            if each.model == model and each.version == version and each.role == "stable":
                bad = sum(n for kind, n in each.errors.items() if kind != "cancelled")
                failed, total = failed + bad, total + each.success + bad
        return failed, total

    async def _read_sources(self) -> None:
        now = self._clock.monotonic()
        for run in self._runs.values():
            if run.rollout.final or run.status.state == "queued":
                continue
            guardrails = [each for each in run.rollout.spec.guardrails if each.source]
            if guardrails and now >= run.read_at:
                run.read_at = now + _READ_SECONDS
                run.begin("readings", self._read(run, guardrails))

    async def _read(self, run: Run, guardrails: Sequence[Any]) -> None:
        for guardrail in guardrails:
            source = self._sources.get(guardrail.source)
            try:
                if source is None:
                    raise BadInput(f"no {guardrail.source} is configured")
                value = await source.read(guardrail.query)
                reading = Reading(value, "" if value is not None else "the query gave no data")
            except HotswapError as exc:
                reading = Reading(None, str(exc))
            run.readings[guardrail.metric] = reading

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
        missing = {g.source for g in spec.guardrails if g.source} - set(self._sources)
        if missing:
            raise BadInput(
                f"a guardrail asks {missing.pop()}, and none is configured: start the server with "
                "--prometheus-url"
            )
        return document.active

    async def _try_queries(self, spec: RolloutSpec) -> None:
        """Raise `BadInput` for a query that is wrong. An outage now is no reason to refuse."""
        with contextlib.suppress(MetricsUnavailable):
            for guardrail in spec.guardrails:
                if guardrail.source:
                    await self._sources[guardrail.source].read(guardrail.query)

    async def start(self, body: Mapping[str, Any], *, who: str = "") -> RolloutView:
        """See `Control.start_rollout`."""
        spec = parse(body)
        key = body.get("idempotency_key") or ""
        if not isinstance(key, str) or len(key) > 256:
            raise BadInput("idempotency_key must be a string of at most 256 characters")
        if key not in self._keys:
            self._check(spec)
            await self._try_queries(spec)
        async with self._starting:
            if key and key in self._keys:
                return self._repeated(self._keys[key], spec)
            stable = self._check(spec)
            current = self._ticks.current.get(spec.model)
            if current is not None and current.status.state == "watching":
                await self._end_watch(current)
                current = None
            if current is not None and current.rollout.final and current.closed:
                current = None
            queued = current is not None
            if current is not None:
                await self._beside(current, spec)
            rollout = begun(
                secrets.token_hex(5), spec, stable, self._instances(spec.model, stable),
                self._stats(), self._clock.wall(), key, queued=queued,
            )  # fmt: skip
            run = Run(Document(rollout))
            run.restarts_before = sum(s.restarts for s in self._node.warm(spec.model, spec.version))
            self._runs[rollout.id] = run
            record = Record(rollout, rollout.status)
            try:
                await self._ticks.record(run, rollout, "started", record, must=True, who=who)
                if run.outage:
                    raise Conflict(f"the rollout was not started: {run.outage}")
            except BaseException:
                self._runs.pop(rollout.id, None)
                raise
            if key:
                self._keys[key] = rollout.id
            if not queued:
                self._ticks.current[spec.model] = run
            self._ticks.tell(run)
            self._news.set()
        return self._view(run)

    def _repeated(self, id: str, spec: RolloutSpec) -> RolloutView:
        run = self._run(id)
        if run.rollout.spec != spec:
            raise Conflict(f"the idempotency key was used for another rollout, {id}")
        return self._view(run)

    async def _beside(self, current: Run, spec: RolloutSpec) -> None:
        """Another rollout of the model runs: what the operator chose."""
        if spec.on_running == "refuse":
            raise Conflict(
                f"rollout {current.rollout.id} of model {spec.model!r} to "
                f"{current.rollout.spec.version!r} is {phase(current.status)}: abort it, or give "
                "on_running 'replace' or 'queue'"
            )
        if spec.on_running == "replace":
            await self.supersede(spec.model, "another rollout replaces it")
            for run in self._runs.values():  # who waited behind it is replaced too
                if run.rollout.spec.model == spec.model and run.status.state == "queued":
                    why = "another rollout replaced it before it began"
                    run.become(status=entered(run.status, "rolled_back", "superseded", why))
                    run.closed = True

    async def _end_watch(self, run: Run) -> None:
        async with run.lock:
            status = entered(run.status, "healthy", "promoted", "another rollout begins")
            status = msgspec.structs.replace(status, generation=status.generation + 1)
            run.become(status=status)
            run.closed = True
            self._ticks.current.pop(run.rollout.spec.model, None)

    def _instances(self, model: str, stable: str) -> int:
        return self._catalogue.version(model, stable).record.settings.instances

    async def plan(self, body: Mapping[str, Any]) -> PlanView:
        """See `Control.plan_rollout`."""
        spec = parse(body)
        stable = self._check(spec)
        await self._try_queries(spec)
        traffic = self.traffic(spec.model, stable)
        return preflight(spec, dict(body), stable, traffic.per_second, traffic.error_rate)

    def traffic(self, model: str, stable: str) -> Traffic:
        """Requests a second and failures of stable, over the time since they were last asked for
        (at most some minutes), else since the server began.
        """
        now = self._clock.monotonic()
        total = traffic_of(self._stats(), model, stable)
        before = self._traffic.get(model)
        self._traffic[model] = (now, total, 0.0)
        if before is None or not 1.0 <= now - before[0] <= 600.0:
            uptime = max(1.0, self._clock.wall() - self._node.snapshot.started_at)
            return msgspec.structs.replace(total, per_second=total.requests / uptime)
        seconds = now - before[0]
        per_second = max(0, total.requests - before[1].requests) / seconds
        return msgspec.structs.replace(total, per_second=per_second)

    def sample_traffic(self) -> None:
        """Once in a while: so that a plan can tell the traffic of the last minute."""
        now = self._clock.monotonic()
        for name, model in self._catalogue.models.items():
            before = self._traffic.get(name)
            if model.active is not None and (before is None or now - before[0] > 30.0):
                self._traffic[name] = (now, traffic_of(self._stats(), name, model.active), 0.0)

    # --- look

    def _run(self, id: str) -> Run:
        run = self._runs.get(id)
        if run is not None:
            return run
        raise NotFound(f"there is no rollout {id!r}")

    def _view(self, run: Run, *, metrics: bool = True) -> RolloutView:
        rollout = run.rollout
        table = self._node.tables.get(rollout.spec.model)
        analysis = None
        if metrics and rollout.status.state != "queued":
            seen = self._ticks.observe(run)
            analysis = analysed(rollout, seen)
        exposed = exposure_of(table, rollout)
        active = table.stable if table is not None else None
        return rollout_view(rollout, analysis, run.document.history, exposed, active)

    async def all(self, model: str | None = None) -> list[RolloutView]:
        """Newest first, without their metrics' details."""
        runs = sorted(self._runs.values(), key=lambda run: -run.rollout.created_at)
        if model is not None:
            self._catalogue.model(model)
            runs = [run for run in runs if run.rollout.spec.model == model]
        return [self._view(run, metrics=False) for run in runs]

    async def get(self, id: str) -> RolloutView:
        """With all of it."""
        return self._view(self._run(id))

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
        counts: dict[tuple[str, str, str, str], int] = {}
        for run in self._runs.values():
            if run.rollout.final:
                spec, status = run.rollout.spec, run.status
                key = (spec.model, spec.strategy, phase(status), reason(status))
                counts[key] = counts.get(key, 0) + 1
        return counts

    async def journal(self, id: str) -> list[JournalView]:
        """Every entry, oldest first."""
        run = self._run(id)
        entries = await self._store.journal(id, run.document.last)
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
        run = self._run(id)
        if command not in COMMANDS:
            raise BadInput(f"there is no command {command!r}: use {', '.join(COMMANDS)}")
        if idempotency_key and run.commands.get(idempotency_key) == command:
            return self._view(run)
        if idempotency_key and idempotency_key in run.commands:
            raise refusal(run.rollout, command, "this idempotency key was used for another command")
        if command == "abort" and generation is None:
            self._ticks.lower(run)  # at once: whoever holds the lock may wait for the store
        async with run.lock:
            rollout = run.rollout
            if generation is not None and generation != rollout.status.generation:
                raise refusal(rollout, command, f"generation {generation} is not the present one")
            if command == "retry":
                self._check_retry(run)
            seen = self._ticks.observe(run)
            before = rollout
            analysis = analysed(rollout, seen)
            after = commanded(rollout, command, analysis, force=force, why=why)
            if after is not rollout:
                if command == "retry":
                    after = self._another_attempt(run, after)
                    # The next attempt's units, keys and counters are its own.
                record = Record(before, after.status, seen, force=force)
                saved = await self._ticks.record(
                    run, after, "commanded", record, must=command != "abort",
                    who=who, command=command, why=why, key=idempotency_key or "",
                )  # fmt: skip
                if not saved:
                    raise Conflict(f"the command was not carried out: {run.outage}")
                self._ticks.tell(run)
            if idempotency_key:
                run.commands[idempotency_key] = command
            if run.status.exposure is None:
                self._ticks.lower(run)
        self._news.set()
        return self._view(run)

    def _check_retry(self, run: Run) -> None:
        name = run.rollout.spec.model
        current = self._ticks.current.get(name)
        if current is not None and current is not run and not current.rollout.final:
            raise refusal(run.rollout, "retry", f"rollout {current.rollout.id} of the model runs")
        document = self._catalogue.model(name)
        self._catalogue.version(name, run.rollout.spec.version)
        active = document.active
        if active is None or active == run.rollout.spec.version:
            raise refusal(run.rollout, "retry", f"{active or 'no version'} is active")

    def _another_attempt(self, run: Run, after: Rollout) -> Rollout:
        document = self._catalogue.model(run.rollout.spec.model)
        assert document.active is not None
        run.forget()
        run.restarts_before = sum(
            s.restarts for s in self._node.warm(document.name, run.rollout.spec.version)
        )
        self._ticks.current[document.name] = run
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
        run = self._run(id)
        deadline = self._clock.monotonic() + seconds
        while not run.rollout.final and self._clock.monotonic() < deadline:
            async with run.lock:
                await self._ticks.advance(run)
            if not run.rollout.final:
                await asyncio.sleep(0.01)
        return self._view(run, metrics=False)

    def running(self, model: str) -> RolloutView | None:
        """The rollout that divides or is about to divide the model's requests, if any."""
        run = self._ticks.current.get(model)
        if run is None or run.rollout.final or run.status.state == "watching":
            return None
        return self._view(run, metrics=False)

    async def supersede(self, model: str, why: str) -> None:
        """Take back the running rollout of a model: something else is about to happen to it."""
        run = self._ticks.current.get(model)
        if run is None or run.rollout.final:
            return
        if run.status.state == "watching":
            await self._end_watch(run)
            return
        self._ticks.lower(run)
        async with run.lock:
            if run.status.state in (*FINAL, "rolling_back"):
                return  # meanwhile
            before = run.rollout
            status = returned(run.status, "superseded", why)
            status = msgspec.structs.replace(status, generation=status.generation + 1)
            after = msgspec.structs.replace(before, status=status)
            record = Record(before, status)
            await self._ticks.record(
                run, after, "superseded", record, must=False, command="supersede", why=why
            )
            self._ticks.tell(run)
        self._news.set()
