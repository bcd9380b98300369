"""A control service in memory, which loads nothing: for tests of what stands in front of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from hotswap.core.drift_views import DriftView
from hotswap.core.naming import natural_key, next_version
from hotswap.core.quality_views import Quality
from hotswap.core.registry_views import RegistryView
from hotswap.core.replay_views import Replay
from hotswap.core.stats import ModelStats
from hotswap.core.views import ModelView, OperationView, SwitchView, VersionView
from hotswap.errors import BadInput, Conflict, HotswapError, LoadError, NotFound
from hotswap.testing.fake_rollouts import FakeRollouts


class FakeControl(FakeRollouts):
    """Implements `hotswap.control.interface.Control`.

    A version whose uri contains ``broken`` cannot be loaded. ``failure``, when set, is raised
    by every method that talks to the store. ``unready`` is why the node is not ready.
    ``drifts`` is what is known of drift, by model. ``calls`` are the commands that were given, in order.
    """

    def __init__(self, info: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.table: dict[str, ModelView] = {}
        self.done: list[OperationView] = []
        self.keys: dict[str, SwitchView] = {}
        self.counters: list[ModelStats] = []
        self.drifts: dict[str, DriftView] = {}
        #: reports, by model; where none is, nothing is recorded
        self.qualities: dict[str, Quality] = {}
        #: replays, by model; where none is, nothing is recorded
        self.replays: dict[str, Replay] = {}
        #: what became of records and labels; None: nothing is recorded
        self.records: dict[str, int] | None = None
        self.failure: HotswapError | None = None
        self.unready = ""
        self.followed: RegistryView | None = None
        self.hints = 0
        self.details: dict[str, Any] = {
            "version": "0.0",
            "data": "http://127.0.0.1:1",
            "control": "http://127.0.0.1:2",
            "uptime_seconds": 61.0,
        } | (info or {})

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _model(self, name: str) -> ModelView:
        self._fail()
        if name not in self.table:
            raise NotFound(f"there is no model '{name}'")
        return self.table[name]

    def _version(self, model: str, version: str) -> VersionView:
        for view in self._model(model).versions:
            if view.version == version:
                return view
        raise NotFound(f"model '{model}' has no version '{version}'")

    def _put(self, model: str, *views: VersionView) -> None:
        versions = {view.version: view for view in (*self.table[model].versions, *views)}
        ordered = sorted(versions.values(), key=lambda view: natural_key(view.version))
        self.table[model] = msgspec.structs.replace(self.table[model], versions=tuple(ordered))

    def _operation(self, kind: str, model: str, version: str, **more: Any) -> OperationView:
        view = OperationView(f"op-{len(self.done) + 1}", kind, model, version, "done", **more)
        self.done.append(view)
        return view

    async def models(self) -> list[ModelView]:
        self._fail()
        return [self.table[name] for name in sorted(self.table)]

    async def model(self, name: str) -> ModelView:
        return self._model(name)

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
        self._fail()
        self.calls.append(("register", model, uri, version, runtime, in_place, compile, who))
        known = self.table.setdefault(model, ModelView(model, None, None, 0, None, ()))
        names = [view.version for view in known.versions]
        if version in names:
            raise Conflict(f"version '{version}' of '{model}' exists already")
        view = VersionView(
            version=version or next_version(names),
            digest="sha256:" + hashlib.sha256(uri.encode()).hexdigest(),
            runtime=runtime or "sklearn",
            state="REGISTERED",
            role="",
            weight=0.0,
            instances=0,
            memory_bytes=0,
            load_seconds=None,
            changelog=changelog,
            metadata=metadata or {},
            reason="",
            unvalidated=False,
            uri=uri,
            created_at=1.7e9,
            created_by=who,
        )
        self._put(model, view)
        self.happenings.emit("version", model, f"{view.version} is registered", {})
        return view

    async def remove_version(self, model: str, version: str) -> None:
        if self._version(model, version).role:
            raise Conflict(f"version '{version}' of '{model}' has traffic")
        self.calls.append(("remove_version", model, version))
        kept = tuple(view for view in self._model(model).versions if view.version != version)
        self.table[model] = msgspec.structs.replace(self.table[model], versions=kept)

    async def remove_model(self, model: str, *, force: bool = False) -> None:
        if self._model(model).active is not None and not force:
            raise Conflict(f"model '{model}' has traffic")
        self.calls.append(("remove_model", model))
        del self.table[model]

    async def load(self, model: str, version: str) -> OperationView:
        self._warm(model, version, "resident")
        return self._operation("load", model, version)

    def _warm(self, model: str, version: str, role: str) -> None:
        view = self._version(model, version)
        if "broken" in view.uri:
            reason = f"{model}/{version} could not be loaded: ValueError: not a model"
            self._put(model, msgspec.structs.replace(view, state="UNAVAILABLE", reason=reason))
            raise LoadError(reason)
        warm: dict[str, Any] = {"state": "READY", "instances": 1, "memory_bytes": 8 << 20}
        warm |= {"load_seconds": 0.25, "steady_ms": 2.0, "role": role}
        weight = 100.0 if role == "stable" else 0.0
        self._put(model, msgspec.structs.replace(view, weight=weight, **warm))

    async def unload(self, model: str, version: str) -> OperationView:
        view = self._version(model, version)
        if view.weight:
            raise Conflict(f"version '{version}' of '{model}' has traffic")
        self._put(model, msgspec.structs.replace(view, state="REGISTERED", role="", instances=0))
        return self._operation("unload", model, version)

    async def switch(
        self,
        model: str | None,
        version: str,
        *,
        force: bool = False,
        replace: bool = False,
        idempotency_key: str | None = None,
    ) -> SwitchView:
        self._fail()
        self.calls.append(("switch", model, version, force, idempotency_key))
        if model is None and len(self.table) != 1:
            raise BadInput(f"say which model: there are {len(self.table)}")
        return self._flip("switch", model or next(iter(self.table)), version, idempotency_key)

    async def rollback(self, model: str, *, idempotency_key: str | None = None) -> SwitchView:
        self.calls.append(("rollback", model, idempotency_key))
        previous = self._model(model).previous
        if previous is None:
            raise Conflict(f"model '{model}' has no version to return to")
        return self._flip("rollback", model, previous, idempotency_key)

    def _flip(self, kind: str, model: str, version: str, key: str | None) -> SwitchView:
        if key is not None and key in self.keys:
            return self.keys[key]
        before = self._activate(model, version)
        revision = self.table[model].revision
        operation = self._operation(kind, model, version, from_version=before, revision=revision)
        view = SwitchView(operation.id, before, version, revision, 12.5, 0.25)
        if key is not None:
            self.keys[key] = view
        data = {"operation": operation.id, "from": before, "to": version}
        self.happenings.emit("switch", model, f"{version} answers now", data)
        return view

    def _activate(self, model: str, version: str) -> str | None:
        before = self._model(model).active
        self._warm(model, version, "stable")
        if before is not None and before != version:
            self._warm(model, before, "previous")
        self.table[model] = msgspec.structs.replace(
            self.table[model],
            active=version,
            previous=before,
            revision=self.table[model].revision + 1,
        )
        return before

    async def operations(self) -> list[OperationView]:
        self._fail()
        return self.done[::-1]

    async def operation(self, id: str) -> OperationView:
        self._fail()
        for view in self.done:
            if view.id == id:
                return view
        raise NotFound(f"there is no operation '{id}'")

    async def abort_operation(self, operation: str) -> OperationView:
        view = await self.operation(operation)
        if view.state != "preparing":
            raise Conflict(
                f"operation '{operation}' is {view.state}: only preparing ones end early"
            )
        self.calls.append(("abort_operation", operation))
        aborted = msgspec.structs.replace(view, state="aborted", reason="aborted by a person")
        self.done[self.done.index(view)] = aborted
        return aborted

    async def registry(self) -> RegistryView:
        if self.followed is None:
            raise NotFound("this server follows no model registry")
        return self.followed

    def registry_hint(self) -> None:
        self.hints += 1

    async def quality(
        self,
        model: str,
        *,
        since_seconds: float | None = None,
        until: float | None = None,
        versions: tuple[str, str] | None = None,
        by: str | None = None,
    ) -> Quality:
        self._model(model)
        self.calls.append(("quality", model, since_seconds, until, versions, by))
        if model not in self.qualities:
            raise Conflict("nothing is recorded here: start the server with --records on")
        return self.qualities[model]

    async def replay(
        self,
        model: str,
        version: str,
        *,
        since_seconds: float | None = None,
        max_rows: int = 100_000,
        by: str | None = None,
    ) -> Replay:
        self._version(model, version)
        self.calls.append(("replay", model, version, since_seconds, max_rows, by))
        if model not in self.replays:
            raise Conflict("nothing is recorded here: start the server with --records on")
        return self.replays[model]

    async def drift(self, model: str) -> DriftView:
        self._model(model)
        return self.drifts.get(model) or DriftView(model, "off", "drift is not watched here", 0.0)

    async def reset_drift(self, model: str) -> DriftView:
        self._model(model)
        if model not in self.drifts:
            raise Conflict("drift is not watched here")
        self.calls.append(("reset_drift", model))
        before = self.drifts[model]
        message = "0 of the 5,000 rows of the reference of inputs are there"
        self.drifts[model] = DriftView(model, "collecting", message, before.tolerance)
        return self.drifts[model]

    def drift_gauges(self) -> list[DriftView]:
        return list(self.drifts.values())

    async def clear_cache(self) -> list[tuple[str, str]]:
        cleared = []
        for name, model in self.table.items():
            for view in model.versions:
                if view.state == "READY" and not view.weight:
                    await self.unload(name, view.version)
                    cleared.append((name, view.version))
        return cleared

    def stats(self) -> list[ModelStats]:
        return self.counters

    def ready(self) -> tuple[bool, str]:
        return not self.unready, self.unready

    def info(self) -> dict[str, Any]:
        return self.details

    def record_counts(self) -> Mapping[str, Any] | None:
        return self.records

    def switch_counters(self) -> dict[tuple[str, str], int]:
        flips = [op for op in self.done if op.kind in ("switch", "rollback")]
        return {(op.model, op.state): sum(o.model == op.model for o in flips) for op in flips}

    def switch_seconds(self) -> dict[str, tuple[int, float]]:
        counts = self.switch_counters()
        return {model: (count, count * 0.0125) for (model, _), count in counts.items()}
