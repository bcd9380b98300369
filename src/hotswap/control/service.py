"""Control's service: every command of an operator, and what keeps the node as it should be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from hotswap.control.catalogue import Catalogue
from hotswap.control.jobs import JobRunner
from hotswap.control.node import Node
from hotswap.control.operations import Operations
from hotswap.control.registry import Registry
from hotswap.control.tables import build_table, differs
from hotswap.control.views import model_view
from hotswap.control.warming import Policy, Warming
from hotswap.core.eviction import Resident
from hotswap.core.lifecycle import Intent, ModelDocument, decided, flipped, rollback_target
from hotswap.core.signature import Signature
from hotswap.core.stats import ModelStats
from hotswap.core.views import ModelView, OperationView, SwitchView, VersionView
from hotswap.errors import BadInput, Conflict, HotswapError, StoreError
from hotswap.ipc.messages import HostState, Published
from hotswap.ipc.tally import read_tallies
from hotswap.ports import Clock, Store

log = structlog.get_logger("hotswap.control")

_LAZY_RETRY_SECONDS = 30.0
_RETRY_SECONDS = 30.0


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
    ) -> None:
        self._node = node
        self._store = store
        self._clock = clock
        self._keep_warm = keep_warm_seconds
        self._memory_of = memory_of
        self._info = info
        self._policy = policy
        self._catalogue = Catalogue(store)
        self._operations = Operations(store, clock)
        self._registry = Registry(
            self._catalogue,
            jobs,
            policy,
            clock,
            state_dir,
            roots,
            lambda: {table.model: table.index for table in node.tables.values()},
        )
        self._warming = Warming(node, policy, self._residents, self._evict, clock.monotonic)
        self._locks: dict[str, asyncio.Lock] = {}
        self._preparing: dict[str, tuple[str, asyncio.Task[Any]]] = {}
        self._required: set[str] = set()
        self._store_error = "the store is not open yet"
        self._started = node.snapshot.started
        #: (model, version) -> until when a former stable stays warm, monotonic
        self._warm_until: dict[tuple[str, str], float] = {}
        self._loaded_at: dict[tuple[str, str], float] = {}
        self._memory: dict[str, int] = {}
        self._measure_at = 0.0
        self._lazy: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._lazy_waiting: set[tuple[str, str]] = set()
        self._switches: dict[tuple[str, str], int] = {}
        self._seconds: dict[str, tuple[int, float]] = {}
        self._draining = False
        node.on_wanted = self._wanted

    # --- start

    async def open(self) -> None:
        """Read the store. Raises `StoreError`; may be called again."""
        try:
            await self._store.open()
            await self._catalogue.load()
            await self._operations.load()
        except StoreError as exc:
            self._store_error = str(exc)
            raise
        self._store_error = ""

    async def restore(self) -> None:
        """Bring up what was active; roll unfinished flips forward. Failures are kept as reasons."""
        named = {r.host for t in self._node.tables.values() for e in t.versions for r in e.hosts}
        self._node.forget_strangers(named)
        known = {document.index for document in self._catalogue.models.values()}
        for table in list(self._node.tables.values()):
            if table.index not in known and table.versions:
                log.warning("a model is served that the store does not know", model=table.model)
        self._required = {m.name for m in self._catalogue.models.values() if m.active or m.intent}
        await asyncio.gather(*(self._bring_up(name) for name in list(self._catalogue.models)))
        self._check_started()

    async def _bring_up(self, name: str) -> None:
        model = self._catalogue.model(name)
        try:
            if model.intent is not None:
                await self._roll_forward(model)
            elif model.active is not None:
                await self._warm(name, model.active, model.signature)
        except HotswapError as exc:
            log.error("an active version could not be brought up", model=name, reason=str(exc))
        async with self._lock(name):
            with contextlib.suppress(HotswapError):
                await self._republish(name)

    async def _roll_forward(self, model: ModelDocument) -> None:
        intent = model.intent
        assert intent is not None
        log.info("an unfinished flip is rolled forward", model=model.name, to=intent.version)
        try:
            await self._warm(model.name, intent.version, model.signature)
        except HotswapError:
            # It cannot be finished: what was active stays so.
            await self._catalogue.save(msgspec.structs.replace(model, intent=None))
            if model.active is not None:
                await self._warm(model.name, model.active, model.signature)
            raise
        async with self._lock(model.name):
            await self._flip(self._catalogue.model(model.name), intent)

    def _check_started(self) -> None:
        """Ready for the first time once every required model is warm."""
        if self._started:
            return
        if self._required and all(self._is_warm(name) for name in self._required):
            self._started = True
            self._node.all_warm()
            self._preload()
            log.info("every active version is warm", models=len(self._required))

    def _preload(self) -> None:
        """Runtimes of all registered versions, once serving has begun: a switch then only forks."""
        if self._started:
            versions = (v for each in self._catalogue.versions.values() for v in each.values())
            self._node.preload(sorted({v.record.artifact.runtime for v in versions}))

    def _is_warm(self, name: str) -> bool:
        model = self._catalogue.models.get(name)
        if model is None:
            return True
        table = self._node.tables.get(name)
        return (
            model.active is not None
            and table is not None
            and table.stable == model.active
            and any(s.state == "ready" for s in self._node.warm(name, model.active))
        )

    async def adopt(self, found: list[tuple[str, str, Path]], *, first: bool) -> None:
        """Versions that a source has: register the new ones; at first start activate the highest."""
        await self._registry.adopt(found)
        self._preload()
        if first:
            fresh = [
                model.name
                for model in self._catalogue.models.values()
                if model.active is None and not model.history and model.intent is None
                and self._catalogue.versions[model.name]
            ]  # fmt: skip
            self._required.update(fresh)
            await asyncio.gather(*(self._activate_highest(name) for name in fresh))
            self._check_started()
        for name in {model for model, _, _ in found} & set(self._catalogue.models):
            async with self._lock(name):
                with contextlib.suppress(HotswapError):
                    await self._republish(name)

    async def _activate_highest(self, name: str) -> None:
        version = list(self._catalogue.versions[name])[-1]
        with contextlib.suppress(HotswapError):  # the reason is kept and shown
            await self.switch(name, version)

    # --- warming

    async def _warm(self, name: str, version: str, public: Signature | None) -> list[HostState]:
        document = self._catalogue.version(name, version)
        states = await self._warming.warm(document, public)
        self._loaded_at.setdefault((name, version), self._clock.monotonic())
        return states

    def _lock(self, model: str) -> asyncio.Lock:
        return self._locks.setdefault(model, asyncio.Lock())

    def _check_store(self) -> None:
        if self._store_error:
            raise StoreError(self._store_error)

    async def _republish(self, name: str) -> None:
        """Publish the model's table if what is warm or registered has changed. Under its lock."""
        model = self._catalogue.model(name)
        before = self._node.tables.get(name)
        stable = model.active if before is None or before.stable is None else before.stable
        if stable is not None and not self._node.warm(name, stable):
            stable = before.stable if before is not None else None
        table = self._table(model, stable, model.signature, withdrawn=None)
        if differs(table, before):
            await self._node.publish(table)

    def _table(
        self,
        model: ModelDocument,
        stable: str | None,
        signature: Signature | None,
        withdrawn: str | None,
    ) -> Any:
        before = self._node.tables.get(model.name)
        revision = max(model.revision, before.revision if before is not None else 0) + 1
        reasons = {v: r for (m, v), r in self._warming.failures.items() if m == model.name}
        return build_table(
            model,
            self._catalogue.versions[model.name],
            revision=revision,
            stable=stable,
            signature=signature,
            warm=lambda v: [] if v == withdrawn else self._node.warm(model.name, v),
            reasons=reasons,
            loading=lambda v: self._warming.loading(model.name, v),
        )

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
        idempotency_key: str | None = None,
    ) -> SwitchView:
        """Make a version the active one; answers when flipped (see `Control.switch`)."""
        self._check_store()
        name = self._only(model)
        self._catalogue.version(name, version)
        repeated = self._operations.repeated(idempotency_key, "switch", name, version)
        return repeated or await self._change(name, version, "switch", force, idempotency_key)

    async def rollback(self, model: str, *, idempotency_key: str | None = None) -> SwitchView:
        """Back to the latest version that served before and was not rolled back from itself."""
        document = self._catalogue.model(model)
        repeated = self._operations.repeated(idempotency_key, "rollback", model, None)
        if repeated is not None:
            return repeated
        target = rollback_target(document, self._catalogue.registered(model))
        if target is None:
            raise Conflict(
                f"model {model!r} has no version to roll back to: none that is registered served "
                "before and was not itself rolled back from"
            )
        return await self._change(model, target, "rollback", False, idempotency_key)

    async def _change(
        self, name: str, version: str, kind: str, force: bool, key: str | None
    ) -> SwitchView:
        """A switch or rollback; a newer one of the model supersedes it while it is preparing."""
        before = self._catalogue.model(name).active
        operation = self._operations.begin(kind, name, version, before, key)
        earlier = self._preparing.get(name)
        if earlier is not None:
            earlier[1].cancel()
        task: asyncio.Task[SwitchView] = asyncio.get_running_loop().create_task(
            self._carry_out(operation, force)
        )
        self._preparing[name] = (operation.id, task)
        try:
            # Shielded: a client that goes away does not undo what it asked for.
            answer = await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            await self._operations.update(
                operation.id, state="superseded", reason="a newer switch of this model began"
            )
            self._count(name, "superseded")
            raise Conflict(f"the {kind} to {version!r} was superseded by a newer one") from None
        except HotswapError as exc:
            await self._operations.update(operation.id, state="failed", reason=str(exc))
            self._count(name, "failed")
            async with self._lock(name):  # the data plane tells the reason too
                with contextlib.suppress(HotswapError):
                    await self._republish(name)
            raise
        self._count(name, "done")
        return answer

    async def _carry_out(self, operation: OperationView, force: bool) -> SwitchView:
        name, version = operation.model, operation.version
        began = self._clock.monotonic()
        model = self._catalogue.model(name)
        public = None if force else model.signature
        await self._warm(name, version, public)
        prepare_ms = (self._clock.monotonic() - began) * 1000
        if self._preparing.get(name, ("", None))[0] == operation.id:
            del self._preparing[name]  # from here on nothing supersedes it
        async with self._lock(name):
            model = self._catalogue.model(name)
            await self._operations.update(operation.id, state="flipping", prepare_ms=prepare_ms)
            published = await self._flip(model, Intent(version, operation.id, operation.kind, 0))
        seconds = self._clock.monotonic() - began
        count, total = self._seconds.get(name, (0, 0.0))
        self._seconds[name] = (count + 1, total + seconds)
        view = SwitchView(
            operation.id,
            model.active,
            version,
            published.revision,
            prepare_ms,
            published.flip_ms,
            published.publish_ms,
        )
        await self._operations.update(
            operation.id,
            state="done",
            revision=view.revision,
            flip_ms=view.flip_ms,
            publish_ms=view.publish_ms,
            from_version=view.from_,
        )
        log.info(
            "switched",
            model=name,
            from_version=view.from_,
            to=version,
            revision=view.revision,
            prepare_ms=round(prepare_ms, 1),
            flip_ms=round(view.flip_ms, 4),
            publish_ms=round(view.publish_ms, 2),
        )
        self._check_started()
        return view

    async def _flip(self, model: ModelDocument, intent: Intent) -> Published:
        """Save the intent, publish, save that it is done. Under the model's lock.

        Going back never waits for the store (it is what an operator does in trouble); going
        forward is saved first, so that a restart knows what was meant.
        """
        name = model.name
        hosts = self._node.warm(name, intent.version)
        if not hosts:
            raise Conflict(
                f"version {intent.version!r} of model {name!r} is no longer warm; try again"
            )
        lowering = intent.kind == "rollback"
        report = hosts[0].report
        signature = report.signature if report is not None else model.signature
        table = self._table(model, intent.version, signature, withdrawn=None)
        intent = msgspec.structs.replace(intent, revision=table.revision)
        await self._catalogue.save(decided(model, intent), lowering=lowering)
        try:
            published = await self._node.publish(table)
        except HotswapError:
            await self._catalogue.save(model, lowering=True)
            raise
        done = flipped(model, intent, signature)
        await self._catalogue.save(done, lowering=True)
        if model.active is not None and model.active != intent.version:
            until = self._clock.monotonic() + self._keep_warm
            self._warm_until[(name, model.active)] = until
        self._warm_until.pop((name, intent.version), None)
        return published

    def _count(self, model: str, result: str) -> None:
        self._switches[(model, result)] = self._switches.get((model, result), 0) + 1

    # --- load, unload, remove

    async def load(self, model: str, version: str) -> OperationView:
        self._check_store()
        document = self._catalogue.model(model)
        self._catalogue.version(model, version)
        operation = self._operations.begin("load", model, version, None, None)
        began = self._clock.monotonic()
        try:
            await self._warm(model, version, document.signature)
        except HotswapError as exc:
            await self._operations.update(operation.id, state="failed", reason=str(exc))
            raise
        finally:
            async with self._lock(model):
                await self._republish(model)
        ms = (self._clock.monotonic() - began) * 1000
        return await self._operations.update(operation.id, state="done", prepare_ms=ms)

    async def unload(self, model: str, version: str) -> OperationView:
        self._catalogue.version(model, version)
        async with self._lock(model):
            document = self._catalogue.model(model)
            if document.active == version:
                raise Conflict(
                    f"version {version!r} of model {model!r} is active: switch to another one first"
                )
            operation = self._operations.begin("unload", model, version, None, None)
            await self._withdraw(document, version)
        return await self._operations.update(operation.id, state="done")

    async def _withdraw(self, document: ModelDocument, version: str) -> None:
        """Publish a table that names no host of the version; they go once every worker has drained."""
        name = document.name
        before = self._node.tables.get(name)
        stable = before.stable if before is not None else None
        if stable == version:
            stable = None
        table = self._table(document, stable, document.signature, withdrawn=version)
        if differs(table, before):
            await self._node.publish(table)
        self._warm_until.pop((name, version), None)
        self._loaded_at.pop((name, version), None)

    async def remove_version(self, model: str, version: str) -> None:
        self._check_store()
        self._catalogue.version(model, version)
        async with self._lock(model):
            document = self._catalogue.model(model)
            if document.active == version:
                raise Conflict(
                    f"version {version!r} of model {model!r} is active: it has all the weight"
                )
            target = rollback_target(document, self._catalogue.registered(model))
            if target == version:
                raise Conflict(
                    f"version {version!r} of model {model!r} is the version that a rollback leads to"
                )
            await self._withdraw(document, version)
            await self._catalogue.remove_version(model, version)
            self._warming.failures.pop((model, version), None)
            await self._republish(model)
        await self._registry.sweep()

    async def remove_model(self, model: str) -> None:
        self._check_store()
        async with self._lock(model):
            document = self._catalogue.model(model)
            if document.active is not None:
                raise Conflict(f"model {model!r} has an active version and may be in use")
            table = self._table(document, None, None, withdrawn=None)
            await self._node.publish(msgspec.structs.replace(table, versions=()))
            await self._catalogue.remove_model(model)
        await self._registry.sweep()

    async def clear_cache(self) -> list[tuple[str, str]]:
        gone = [(r.model, r.version) for r in self._residents() if not r.held]
        for model, version in gone:
            await self.unload(model, version)
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
        self._preload()
        async with self._lock(model):
            await self._republish(model)
        view = await self.model(model)
        return next(v for v in view.versions if v.version == document.record.version)

    # --- what keeps the node as it should be

    def _wanted(self, model: str, version: str) -> None:
        """A client asked for a version that is not warm: one such load at a time."""
        key = (model, version)
        failed = self._warming.failed_at.get(key)
        recently = failed is not None and self._clock.monotonic() - failed < _LAZY_RETRY_SECONDS
        if key not in self._lazy_waiting and not recently:
            self._lazy_waiting.add(key)
            self._lazy.put_nowait(key)

    async def run_lazy_loads(self) -> None:
        """For ever: load what clients asked for, in the order in which they asked."""
        while True:
            model, version = await self._lazy.get()
            try:
                await self.load(model, version)
            except HotswapError as exc:
                log.warning(
                    "a version could not be loaded", model=model, version=version, reason=str(exc)
                )
            finally:
                self._lazy_waiting.discard((model, version))

    async def tick(self) -> None:
        """Once a second or so: memory, what has been warm long enough, what could not be saved."""
        now = self._clock.monotonic()
        if now >= self._measure_at:
            await self._measure()
            # Reading a process's memory takes the kernel a while: less often the more there are.
            self._measure_at = now + max(2.0, 0.02 * len(self._memory))
        if self._catalogue.dirty:
            with contextlib.suppress(StoreError):
                await self._catalogue.flush()
        for (model, version), until in list(self._warm_until.items()):
            if until <= now:
                self._warm_until.pop((model, version))
                with contextlib.suppress(HotswapError):
                    await self.unload(model, version)
        for resident in self._over_budget():
            with contextlib.suppress(HotswapError):
                await self.unload(resident.model, resident.version)
        await self._retry_active(now)
        self._check_started()

    async def _measure(self) -> None:
        """What each host holds alone."""
        pids = {h: s.pid for h, s in self._node.hosts.items() if s.pid and s.state == "ready"}
        self._memory = await asyncio.to_thread(
            lambda: {host: self._memory_of(pid) for host, pid in pids.items()}
        )

    async def _retry_active(self, now: float) -> None:
        """An active version that is not warm is tried again now and then."""
        for name, model in list(self._catalogue.models.items()):
            if model.active is None or self._node.warm(name, model.active):
                continue
            failed = self._warming.failed_at.get((name, model.active), -1e9)
            if now - failed >= _RETRY_SECONDS and not self._warming.loading(name, model.active):
                await self._bring_up(name)

    def _over_budget(self) -> list[Resident]:
        residents = self._residents()
        total = sum(resident.memory_bytes for resident in residents)
        budget = self._policy.memory_budget
        gone = []
        for each in sorted((r for r in residents if not r.held), key=lambda r: r.last_used):
            if total <= budget:
                break
            gone.append(each)
            total -= each.memory_bytes
        return gone

    def _evict(self, model: str, version: str) -> None:
        task = asyncio.get_running_loop().create_task(self.unload(model, version))
        task.add_done_callback(lambda done: done.exception())

    def _residents(self) -> list[Resident]:
        """Loaded versions with what they hold and when they were last used (monotonic)."""
        memory: dict[tuple[str, str], int] = {}
        for host, state in self._node.hosts.items():
            if state.report is None:
                continue
            key = (state.spec.model, state.spec.version)
            own = self._memory.get(host, state.report.memory_bytes)
            memory[key] = memory.get(key, 0) + own
        age = self._clock.wall() - self._clock.monotonic()
        used: dict[tuple[str, str], float] = {}
        for stats in self.stats():
            key = (stats.model, stats.version)
            used[key] = max(used.get(key, 0.0), stats.last_inference / 1000 - age)
        return [
            Resident(
                model, version, size,
                max(used.get((model, version), 0.0), self._loaded_at.get((model, version), 0.0)),
                self._held(model, version),
            )
            for (model, version), size in sorted(memory.items())
        ]  # fmt: skip

    def _held(self, model: str, version: str) -> bool:
        document = self._catalogue.models.get(model)
        if document is None:
            return False
        return document.active == version or (model, version) in self._warm_until

    # --- what is shown

    async def models(self) -> list[ModelView]:
        if self._store_error and not self._catalogue.models:
            raise StoreError(self._store_error)  # an empty list would say that there are none
        return [await self.model(name) for name in sorted(self._catalogue.models)]

    async def model(self, name: str) -> ModelView:
        if self._store_error and name not in self._catalogue.models:
            raise StoreError(self._store_error)
        document = self._catalogue.model(name)
        return model_view(
            document,
            self._catalogue.versions[name],
            hosts=[s for s in self._node.hosts.values() if s.spec.model == name],
            table=self._node.tables.get(name),
            memory=self._memory,
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
        self._draining = True

    def ready(self) -> tuple[bool, str]:
        if self._draining:
            return False, "the server is stopping"
        if self._started:
            return True, ""
        if self._store_error:
            return False, self._store_error
        cold = sorted(name for name in self._required if not self._is_warm(name))
        if cold:
            reasons = [r for (m, _), r in self._warming.failures.items() if m in cold]
            return False, f"not warm yet: {', '.join(cold)}" + (
                f" ({reasons[0]})" if reasons else ""
            )
        return False, "no model is served yet" if not self._required else "starting"

    def info(self) -> dict[str, Any]:
        return {**self._info(), "workers": self._node.workers, "store_error": self._store_error}

    def switch_counters(self) -> dict[tuple[str, str], int]:
        return dict(self._switches)

    def switch_seconds(self) -> dict[str, tuple[int, float]]:
        return dict(self._seconds)
