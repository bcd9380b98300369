"""Route tables as control makes them: what is warm, in the newest revision, one writer a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hotswap.control.catalogue import Catalogue
from hotswap.control.node import Node
from hotswap.control.tables import build_table, differs
from hotswap.control.warming import Warming
from hotswap.core.lifecycle import ModelDocument
from hotswap.core.routing import RouteTable, Split
from hotswap.core.signature import Signature
from hotswap.ipc.messages import HostState
from hotswap.ports import Clock


class Routes:
    """Warms versions, and publishes tables that name what is warm.

    ``warm_until`` says until when a former stable version stays warm (monotonic seconds);
    ``loaded_at`` when a version was loaded. ``split_of(model, stable)`` is how requests are
    divided under a table with that stable version; ``held`` are versions that a rollout needs.
    """

    def __init__(self, node: Node, catalogue: Catalogue, warming: Warming, clock: Clock) -> None:
        self.warming = warming
        self.warm_until: dict[tuple[str, str], float] = {}
        self.loaded_at: dict[tuple[str, str], float] = {}
        self.split_of: Callable[[str, str | None], Split | None] = lambda model, stable: None
        self.held: Callable[[str, str], bool] = lambda model, version: False
        self._node = node
        self._catalogue = catalogue
        self._clock = clock
        self._locks: dict[str, asyncio.Lock] = {}

    def is_warm(self, name: str) -> bool:
        """Whether the model's active version can answer and is routed to."""
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

    async def warm(
        self, name: str, version: str, public: Signature | None, least: int = 0
    ) -> list[HostState]:
        """Hosts of a version that can answer, ``least`` of them. Raises what the version raised."""
        document = self._catalogue.version(name, version)
        states = await self.warming.warm(document, public, least)
        self.loaded_at.setdefault((name, version), self._clock.monotonic())
        return states

    def lock(self, model: str) -> asyncio.Lock:
        """Held by who writes the model's document or publishes its table."""
        return self._locks.setdefault(model, asyncio.Lock())

    def give_up(self, model: str, version: str) -> None:
        """Nobody wants a version any more that is still being loaded."""
        self.warming.give_up(model, version)
        for state in list(self._node.hosts.values()):
            if (state.spec.model, state.spec.version, state.state) == (model, version, "starting"):
                self._node.stop(state.spec.host)
        self.warming.failures.pop((model, version), None)

    async def republish(self, name: str) -> None:
        """Publish the model's table if what is warm or registered has changed. Under its lock."""
        model = self._catalogue.model(name)
        before = self._node.tables.get(name)
        stable = None if before is None else before.stable
        if before is None or before.stable is None or before.revision < model.revision:
            stable = model.active  # a table older than the last flip comes from old notes
        if stable is not None and not self._node.warm(name, stable):
            stable = before.stable if before is not None else None
        table = self.table(model, stable, model.signature, withdrawn=None)
        if differs(table, before):
            await self._node.publish(table)

    def table(
        self,
        model: ModelDocument,
        stable: str | None,
        signature: Signature | None,
        withdrawn: str | None,
    ) -> RouteTable:
        """The model's next table; ``withdrawn`` names a version whose hosts it must not name."""
        before = self._node.tables.get(model.name)
        revision = max(model.revision, before.revision if before is not None else 0) + 1
        reasons = {v: r for (m, v), r in self.warming.failures.items() if m == model.name}
        if signature is None:
            signature = self._own_signature(model.name)
        return build_table(
            model,
            self._catalogue.versions[model.name],
            revision=revision,
            stable=stable,
            signature=signature,
            warm=lambda v: [] if v == withdrawn else self._node.warm(model.name, v),
            reasons=reasons,
            loading=lambda v: self.warming.loading(model.name, v),
            split=self.split_of(model.name, stable),
        )

    def _own_signature(self, name: str) -> Signature | None:
        """Before a model's first activation: what its warm versions agree on, for pinned requests."""
        states = [s for v in self._catalogue.versions[name] for s in self._node.warm(name, v)]
        found = {state.report.signature for state in states if state.report is not None}
        return found.pop() if len(found) == 1 else None

    async def withdraw(self, document: ModelDocument, version: str) -> None:
        """Publish a table that names no host of the version; they go once every worker has drained."""
        name = document.name
        before = self._node.tables.get(name)
        stable = before.stable if before is not None else None
        if stable == version:
            stable = None
        table = self.table(document, stable, document.signature, withdrawn=version)
        if differs(table, before):
            await self._node.publish(table)
        for state in self._node.warm(name, version):  # it was in no table: nothing leads to it
            self._node.stop(state.spec.host)
        self.warm_until.pop((name, version), None)
        self.loaded_at.pop((name, version), None)
