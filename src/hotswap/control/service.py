"""Control's service: every command of an operator, and what keeps the node as it should be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from hotswap.control import quality as reports
from hotswap.control.catalogue import Catalogue
from hotswap.control.drift_watch import DriftWatch
from hotswap.control.events import Events
from hotswap.control.fetching import Fetching
from hotswap.control.holding import Holding
from hotswap.control.jobs import JobRunner
from hotswap.control.node import Node
from hotswap.control.operations import Operations
from hotswap.control.readiness import Readiness
from hotswap.control.recorded import Recorded
from hotswap.control.registry import Registry
from hotswap.control.registry_sync import RegistrySync
from hotswap.control.replaying import Replaying
from hotswap.control.rollouts import Rollouts
from hotswap.control.routes import Routes
from hotswap.control.starting import Starting
from hotswap.control.switching import Switching
from hotswap.control.upkeep import Upkeep
from hotswap.control.views import model_view
from hotswap.control.warming import Policy, Warming
from hotswap.core.drift_views import DriftSettings, DriftView
from hotswap.core.lifecycle import rollback_target
from hotswap.core.metric_names import DRIFT
from hotswap.core.quality_views import Quality
from hotswap.core.registry_views import RegistryView
from hotswap.core.replay_views import Replay
from hotswap.core.rollout_views import EventView, JournalView, PlanView, RolloutView
from hotswap.core.stats import ModelStats
from hotswap.core.strategy import RolloutDefaults
from hotswap.core.views import ModelView, OperationView, SwitchView, VersionView
from hotswap.errors import BadInput, Conflict, HotswapError, NotFound, StoreError
from hotswap.ipc.tally import read_tallies
from hotswap.ports import Clock, MetricSource, Store

log = structlog.get_logger("hotswap.control")

#: How long a rollback waits for a running rollout to be back.
_RETURN_SECONDS = 10.0


class Service:
    """`hotswap.control.interface.Control` on one node."""

    def __init__(
        self,
        *,
        node: Node,
        store: Store,
        jobs: JobRunner,
        policy: Policy,
        clock: Clock,
        state_dir: Path,
        roots: tuple[Path, ...],
        keep_warm_seconds: float,
        memory_of: Callable[[int], int],
        info: Callable[[], dict[str, Any]],
        readiness: str = "stable",
        sources: Mapping[str, MetricSource] | None = None,
        rollout_defaults: RolloutDefaults | None = None,
        fetching: Fetching | None = None,
        recorded: Recorded | None = None,
        drift: DriftSettings | None = None,
    ) -> None:
        self.recorded = recorded
        self._node = node
        self._store = store
        self._clock = clock
        self._info = info
        self._policy = policy
        self._catalogue = Catalogue(store)
        events = Events(clock)
        self._operations = Operations(store, clock, events.tell)
        self._registry = Registry(
            self._catalogue,
            jobs,
            policy,
            clock,
            state_dir,
            roots,
            lambda: {table.model: table.index for table in node.tables.values()},
            events.tell,
            fetching,
        )
        self._upkeep = Upkeep(
            node, self._catalogue, clock, memory_of, policy.memory_budget, self.stats
        )
        self._warming = Warming(
            node, policy, self._upkeep.residents, self._upkeep.evict, clock.monotonic
        )
        self._routes = Routes(node, self._catalogue, self._warming, clock)
        self._readiness = Readiness(node, self._catalogue, self._routes, readiness)
        self._switching = Switching(
            node,
            self._catalogue,
            self._routes,
            self._operations,
            clock,
            keep_warm_seconds,
            self._readiness.check,
        )
        #: what watches records for drift, where there are some and it is wanted
        self.drift_watch: DriftWatch | None = None
        if recorded is not None and drift is not None:
            self.drift_watch = DriftWatch(
                recorded, drift, self._actives, self.stats, clock, events.tell,
                lambda model: self._catalogue.model(model).signature,
            )  # fmt: skip
        metrics = {} if self.drift_watch is None else {DRIFT: self.drift_watch}
        self._rollouts = Rollouts(
            node, self._catalogue, self._routes, self._switching, store, clock, self.stats,
            {**(sources or {}), **metrics},
            rollout_defaults or RolloutDefaults(),
            events,
            recorded,
        )  # fmt: skip
        self._starting = Starting(
            node, self._catalogue, self._registry, self._routes, self._switching, self._readiness,
            clock, keep_warm_seconds, self.switch, self._rollouts.ending.unwanted,
        )  # fmt: skip
        self._holding = Holding(
            node, self._catalogue, self._registry, self._routes, self._operations, self._rollouts,
            self._readiness, clock,
        )  # fmt: skip
        self._replaying = Replaying(
            recorded, self._catalogue, self._registry, policy, self._operations, clock
        )
        self._upkeep.connect(self._routes, self.load, self.unload, self._starting.bring_up)
        #: what follows a model registry, if one is followed
        self.sync: RegistrySync | None = None
        self._store_error = "the store is not open yet"
        node.on_wanted = self._upkeep.wanted

    # --- start

    async def open(self) -> None:
        """Read the store. Raises `StoreError`; may be called again."""
        try:
            await self._store.open()
            await self._catalogue.load()
            await self._operations.load()
            await self._rollouts.load()  # before any table is made: they say how it is divided
        except StoreError as exc:
            self._store_error = str(exc)
            raise
        self._store_error = ""

    async def restore(self) -> None:
        """Bring up what was active; roll unfinished flips forward. Failures are kept as reasons."""
        await self._starting.restore()

    async def adopt(self, found: list[tuple[str, str, Path]], *, first: bool) -> None:
        """Versions that a source has: register the new ones; at first start activate the highest."""
        await self._starting.adopt(found, first=first)

    async def run_lazy_loads(self) -> None:
        """For ever: load what clients asked for by name, one at a time."""
        await self._upkeep.run_lazy_loads()

    async def tick(self) -> None:
        """Once a second or so: memory, warmth, what could not be saved, what could not be warmed."""
        await self._upkeep.tick()
        self._rollouts.sample_traffic()
        self._readiness.check()

    async def run_rollouts(self, seconds: float = 0.2) -> None:
        """For ever: what happens to rollouts, five times a second, at alarms at once.

        Less often where there are so many that they would leave no time for anything else.
        """
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._rollouts.tick()
            except HotswapError as exc:
                log.warning("rollouts wait", reason=str(exc))
            await self._rollouts.wait(max(seconds, loop.time() - began))

    def _check_store(self) -> None:
        if self._store_error:
            raise StoreError(self._store_error)

    # --- switch and rollback

    def _only(self, model: str | None) -> str:
        if model is not None:
            return model
        names = sorted(self._catalogue.models)
        if len(names) == 1:
            return names[0]
        raise BadInput(
            f"name the model: one of {', '.join(names)}" if names else "no model is registered"
        )

    async def switch(
        self,
        model: str | None,
        version: str,
        *,
        force: bool = False,
        replace: bool = False,
        idempotency_key: str | None = None,
    ) -> SwitchView:
        """Make a version the active one; answers when flipped (see `Control.switch`)."""
        self._check_store()
        name = self._only(model)
        self._registry.check(name, version)
        repeated = self._operations.repeated(idempotency_key, "switch", name, version)
        if repeated is not None:
            return repeated
        await self._make_way(name, f"a switch to {version}", force or replace)
        return await self._switching.change(name, version, "switch", force, idempotency_key)

    async def _make_way(self, model: str, what: str, force: bool) -> None:
        """A running rollout bars everything else, unless it is forced."""
        running = self._rollouts.running(model)
        if running is not None and not force:
            raise Conflict(
                f"rollout {running.id} of model {model!r} to {running.version!r} is "
                f"{running.phase}: abort it first, or force {what}"
            )
        await self._rollouts.ending.make_way(model, what)

    async def rollback(self, model: str, *, idempotency_key: str | None = None) -> SwitchView:
        """Back to the latest version that served before and was not rolled back from itself."""
        document = self._catalogue.model(model)
        repeated = self._operations.repeated(idempotency_key, "rollback", model, None)
        if repeated is not None:
            return repeated
        running = self._rollouts.running(model)
        if running is not None:
            return await self._take_back(running, idempotency_key)
        target = rollback_target(document, self._catalogue.registered(model))
        if target is None:
            raise Conflict(
                f"model {model!r} has no version to roll back to: none that is registered served "
                "before and was not itself rolled back from"
            )
        return await self._switching.change(model, target, "rollback", False, idempotency_key)

    async def _take_back(self, running: RolloutView, key: str | None) -> SwitchView:
        """A rollback while a rollout runs is its end: back to the version that it began beside."""
        began = self._clock.monotonic()
        model, stable = running.model, running.stable or ""
        # An operation of its own: given again with its key it must not go back once more.
        operation = self._operations.begin("rollback", model, stable, running.version, key)
        try:
            await self._rollouts.commands.command(running.id, "abort", why="rollback")
            view = await self._rollouts.ending.ended(running.id, _RETURN_SECONDS)
            if view.phase not in ("RolledBack", "Failed"):
                raise Conflict(f"rollout {running.id} is {view.phase}: {view.message}; try again")
        except HotswapError as exc:
            await self._operations.update(operation.id, state="failed", reason=str(exc))
            raise
        table = self._node.tables.get(model)
        ms = (self._clock.monotonic() - began) * 1000
        done = await self._operations.update(
            operation.id, state="done", revision=table.revision if table is not None else 0,
            prepare_ms=0.0, flip_ms=0.0, publish_ms=ms,
        )  # fmt: skip
        return SwitchView(done.id, running.version, stable, done.revision or 0, 0.0, 0.0, ms)

    async def abort_operation(self, operation: str) -> OperationView:
        """See `Control.abort_operation`."""
        return await self.abort(operation)

    # --- rollouts

    async def start_rollout(self, body: dict[str, Any], *, who: str = "") -> RolloutView:
        self._check_store()
        return await self._rollouts.admission.start(body, who=who)

    async def plan_rollout(self, body: dict[str, Any]) -> PlanView:
        self._check_store()
        return await self._rollouts.admission.plan(body)

    async def rollouts(self, model: str | None = None) -> list[RolloutView]:
        self._check_store()
        return await self._rollouts.shown.all(model)

    async def rollout(self, id: str) -> RolloutView:
        self._check_store()
        return await self._rollouts.shown.get(id)

    async def rollout_journal(self, id: str) -> list[JournalView]:
        self._check_store()
        return await self._rollouts.shown.journal(id)

    async def command_rollout(
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
        self._check_store()
        return await self._rollouts.commands.command(
            id, command, generation=generation, idempotency_key=idempotency_key, force=force,
            why=why, who=who,
        )  # fmt: skip

    def rollout_gauges(self) -> list[RolloutView]:
        return self._rollouts.shown.gauges()

    def rollout_counters(self) -> dict[tuple[str, str, str, str], int]:
        return self._rollouts.ends()

    def recent_events(self) -> list[EventView]:
        return self._rollouts.events.recent()

    def events(self, after: int | None = None) -> AsyncIterator[EventView]:
        return self._rollouts.events.listen(after)

    async def abort(self, operation: str) -> OperationView:
        """Give up a switch that is still preparing. Raises `NotFound`; `Conflict` if it is not."""
        return await self._switching.abort(operation)

    # --- load, unload, remove

    async def load(self, model: str, version: str) -> OperationView:
        self._check_store()
        return await self._holding.load(model, version)

    async def unload(self, model: str, version: str) -> OperationView:
        return await self._holding.unload(model, version)

    async def remove_version(self, model: str, version: str) -> None:
        self._check_store()
        await self._holding.remove_version(model, version)

    async def remove_model(self, model: str, *, force: bool = False) -> None:
        self._check_store()
        await self._holding.remove_model(model, force=force)

    async def clear_cache(self) -> list[tuple[str, str]]:
        gone = []
        for resident in [each for each in self._upkeep.residents() if not each.held]:
            model, version = resident.model, resident.version
            if not self._routes.held(model, version):
                with contextlib.suppress(NotFound):  # removed meanwhile, or just before
                    await self.unload(model, version)
                    gone.append((model, version))
        return gone

    # --- registration

    async def register(
        self,
        model: str,
        uri: str,
        *,
        version: str | None = None,
        runtime: str | None = None,
        metadata: dict[str, Any] | None = None,
        changelog: str = "",
        in_place: bool = False,
        compile: str | None = None,
        who: str = "",
    ) -> VersionView:
        self._check_store()
        document = await self._registry.register(
            model, uri, version=version, runtime=runtime, metadata=metadata or {},
            changelog=changelog, in_place=in_place, compile=compile, who=who,
        )  # fmt: skip
        self._readiness.preload()
        async with self._routes.lock(model):
            await self._routes.republish(model)
        view = await self.model(model)
        return next(v for v in view.versions if v.version == document.record.version)

    async def registry(self) -> RegistryView:
        return await self._followed().view()

    def registry_hint(self) -> None:
        self._followed().hint()

    def _followed(self) -> RegistrySync:
        if self.sync is None:
            raise NotFound(
                "this server follows no model registry: start it with --registry mlflow and "
                "--tracking-uri"
            )
        return self.sync

    # --- quality

    async def quality(
        self,
        model: str,
        *,
        since_seconds: float | None = None,
        until: float | None = None,
        versions: tuple[str, str] | None = None,
        by: str | None = None,
    ) -> Quality:
        document = self._catalogue.model(model)
        since = None if since_seconds is None else self._clock.wall() - since_seconds
        return await reports.report(
            self.recorded, model, document.active, since=since, until=until, versions=versions,
            by=by, now=self._clock.wall(), signature=document.signature,
        )  # fmt: skip

    async def replay(
        self,
        model: str,
        version: str,
        *,
        since_seconds: float | None = None,
        max_rows: int = 100_000,
        by: str | None = None,
    ) -> Replay:
        since = None if since_seconds is None else self._clock.wall() - since_seconds
        return await self._replaying.replay(model, version, since=since, max_rows=max_rows, by=by)

    # --- drift

    def _actives(self) -> dict[str, str | None]:
        return {name: model.active for name, model in self._catalogue.models.items()}

    async def drift(self, model: str) -> DriftView:
        self._catalogue.model(model)
        if self.drift_watch is None:
            return DriftView(model, "off", self._no_drift(), 0.0)
        return self.drift_watch.view(model)

    async def reset_drift(self, model: str) -> DriftView:
        self._catalogue.model(model)
        if self.drift_watch is None:
            raise Conflict(self._no_drift())
        return await self.drift_watch.look(model, reset=True)

    def drift_gauges(self) -> list[DriftView]:
        return [] if self.drift_watch is None else self.drift_watch.views()

    def _no_drift(self) -> str:
        missing = "--records on" if self.recorded is None else "--drift-seconds above 0"
        return f"drift is not watched here: start the server with {missing}"

    # --- what is shown

    async def models(self) -> list[ModelView]:
        if self._store_error:  # also while it is being read: nothing can be asked of it before
            raise StoreError(self._store_error)
        return [await self.model(name) for name in sorted(self._catalogue.models)]

    async def model(self, name: str) -> ModelView:
        if self._store_error:
            raise StoreError(self._store_error)
        document = self._catalogue.model(name)
        return model_view(
            document,
            self._catalogue.versions[name],
            hosts=[
                s for s in self._node.hosts.values() if s.spec.model == name and not s.spec.twin
            ],
            table=self._node.tables.get(name),
            memory=self._upkeep.memory,
            failures={v: r for (m, v), r in self._warming.failures.items() if m == name},
            refused={
                v: d.runs_code
                for v, d in self._catalogue.versions[name].items()
                if d.runs_code and not self._trusted(d.record.artifact.digest)
            },
            loading=lambda version: self._warming.loading(name, version),
            problems=self._registry.problems_of(name),
        )

    def _trusted(self, digest: str) -> bool:
        return self._policy.trust_code or digest in self._policy.trust_digests

    async def operations(self) -> list[OperationView]:
        return self._operations.all()

    async def operation(self, id: str) -> OperationView:
        return self._operations.get(id)

    def stats(self) -> list[ModelStats]:
        return read_tallies(Path(self._node.snapshot.runtime_dir) / "tally")

    def drain(self) -> None:
        """Shutdown has begun."""
        self._readiness.draining = True

    def ready(self) -> tuple[bool, str]:
        return self._readiness.ready(self._store_error)

    def info(self) -> dict[str, Any]:
        return {
            **self._info(),
            "workers": self._node.workers,
            "store_error": self._store_error,
            "rollout_defaults": msgspec.to_builtins(self._rollouts.defaults),
        }

    def record_counts(self) -> Mapping[str, Any] | None:
        return None if self.recorded is None else self.recorded.counts()

    def switch_counters(self) -> dict[tuple[str, str], int]:
        return dict(self._switching.counts)

    def switch_seconds(self) -> dict[str, tuple[int, float]]:
        return dict(self._switching.seconds)
