"""What a node holds of its models: loading and unloading versions, removing them."""

from __future__ import annotations

import msgspec

from hotswap.control.catalogue import Catalogue
from hotswap.control.node import Node
from hotswap.control.operations import Operations
from hotswap.control.readiness import Readiness
from hotswap.control.registry import Registry
from hotswap.control.rollouts import Rollouts
from hotswap.control.routes import Routes
from hotswap.core.lifecycle import rollback_target
from hotswap.core.views import OperationView
from hotswap.errors import Conflict, HotswapError
from hotswap.ports import Clock


class Holding:
    """Each of them under the model's lock, but for the load itself."""

    def __init__(
        self,
        node: Node,
        catalogue: Catalogue,
        registry: Registry,
        routes: Routes,
        operations: Operations,
        rollouts: Rollouts,
        readiness: Readiness,
        clock: Clock,
    ) -> None:
        self._node = node
        self._catalogue = catalogue
        self._registry = registry
        self._routes = routes
        self._operations = operations
        self._rollouts = rollouts
        self._readiness = readiness
        self._clock = clock

    async def load(self, model: str, version: str) -> OperationView:
        """See `Control.load`."""
        document = self._catalogue.model(model)
        self._registry.check(model, version)
        operation = self._operations.begin("load", model, version, None, None)
        began = self._clock.monotonic()
        try:
            await self._routes.warm(model, version, document.signature)
        except HotswapError as exc:
            await self._operations.update(operation.id, state="failed", reason=str(exc))
            raise
        finally:
            async with self._routes.lock(model):
                await self._routes.republish(model)
        ms = (self._clock.monotonic() - began) * 1000
        return await self._operations.update(operation.id, state="done", prepare_ms=ms)

    async def unload(self, model: str, version: str) -> OperationView:
        """`Conflict` for the active version, and for one that a rollout needs."""
        self._catalogue.version(model, version)
        async with self._routes.lock(model):
            document = self._catalogue.model(model)
            if document.active == version:
                raise Conflict(
                    f"version {version!r} of model {model!r} is active: switch to another one first"
                )
            self._check_not_needed(model, version)
            operation = self._operations.begin("unload", model, version, None, None)
            await self._routes.withdraw(document, version)
        return await self._operations.update(operation.id, state="done")

    def _check_not_needed(self, model: str, version: str) -> None:
        running = self._rollouts.running(model)
        if running is not None and version in (running.version, running.stable):
            raise Conflict(
                f"version {version!r} of model {model!r} is needed by rollout {running.id}, "
                f"which is {running.phase}"
            )

    async def remove_version(self, model: str, version: str) -> None:
        """`Conflict` for what `unload` refuses, and for the version that a rollback leads to."""
        self._catalogue.version(model, version)
        async with self._routes.lock(model):
            document = self._catalogue.model(model)
            if document.active == version:
                raise Conflict(
                    f"version {version!r} of model {model!r} is active: it has all the weight"
                )
            self._check_not_needed(model, version)
            target = rollback_target(document, self._catalogue.registered(model))
            if target == version:
                raise Conflict(
                    f"version {version!r} of model {model!r} is the version that a rollback leads to"
                )
            await self._routes.withdraw(document, version)
            await self._catalogue.remove_version(model, version)
            self._node.stop_removed(self._catalogue.registered)
            self._routes.warming.failures.pop((model, version), None)
            await self._routes.republish(model)
        await self._registry.sweep()

    async def remove_model(self, model: str, *, force: bool = False) -> None:
        """See `Control.remove_model`."""
        async with self._routes.lock(model):
            document = self._catalogue.model(model)
            if document.active is not None and not force:
                raise Conflict(
                    f"model {model!r} has an active version and may be in use: "
                    "remove it with force to take it out of service"
                )
        await self._rollouts.ending.supersede(model, "the model is removed")
        async with self._routes.lock(model):
            document = self._catalogue.model(model)
            table = self._routes.table(document, None, None, withdrawn=None)
            await self._node.publish(msgspec.structs.replace(table, versions=()))
            await self._catalogue.remove_model(model)
            self._node.stop_removed(self._catalogue.registered)
            self._readiness.required.discard(model)
        await self._rollouts.ending.removed(model)
        await self._registry.sweep()
