"""Bringing models up: what was active before, what a flip left unfinished, what a source has."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from hotswap.control.catalogue import Catalogue
from hotswap.control.node import Node
from hotswap.control.readiness import Readiness
from hotswap.control.registry import Registry
from hotswap.control.routes import Routes
from hotswap.control.switching import Switching
from hotswap.core.lifecycle import ModelDocument, rollback_target
from hotswap.errors import HotswapError
from hotswap.ports import Clock

log = structlog.get_logger("hotswap.control")


class Starting:
    """``switch`` is the service's; ``unwanted`` says of (model, version) whether a flip to it is
    not to be finished.
    """

    def __init__(
        self,
        node: Node,
        catalogue: Catalogue,
        registry: Registry,
        routes: Routes,
        switching: Switching,
        readiness: Readiness,
        clock: Clock,
        keep_warm_seconds: float,
        switch: Callable[[str, str], Awaitable[object]],
        unwanted: Callable[[str, str], bool],
    ) -> None:
        self._node = node
        self._catalogue = catalogue
        self._registry = registry
        self._routes = routes
        self._switching = switching
        self._readiness = readiness
        self._clock = clock
        self._keep_warm = keep_warm_seconds
        self._switch = switch
        self._unwanted = unwanted

    async def restore(self) -> None:
        """Bring up what was active; roll unfinished flips forward. Failures are kept as reasons."""
        named = {host for table in self._node.tables.values() for host in table.hosts()}
        self._node.forget_strangers(named)
        known = {document.index for document in self._catalogue.models.values()}
        for table in list(self._node.tables.values()):
            if table.index not in known and table.versions:
                log.warning("a model is served that the store does not know", model=table.model)
        for model in self._catalogue.models.values():
            self._keep_target_warm(model)
        self._readiness.required = {
            m.name for m in self._catalogue.models.values() if m.active or m.intent
        }
        await asyncio.gather(*(self.bring_up(name) for name in list(self._catalogue.models)))
        self._readiness.check()

    def _keep_target_warm(self, model: ModelDocument) -> None:
        """A rollback target that the last run left warm stays so, for its time once more."""
        target = rollback_target(model, self._catalogue.registered(model.name))
        if target is None:
            return
        if self._node.warm(model.name, target) or self._node.starting(model.name, target):
            until = self._clock.monotonic() + self._keep_warm
            self._routes.warm_until[(model.name, target)] = until

    async def bring_up(self, name: str) -> None:
        """Warm a model's active version, or finish what was begun. Never raises."""
        model = await self._switching.follow(self._catalogue.model(name))
        try:
            if model.intent is not None and self._unwanted(name, model.intent.version):
                await self._switching.drop_intent(name)
                model = self._catalogue.model(name)
            if model.intent is not None:
                await self._switching.roll_forward(model)
            elif model.active is not None:
                await self._routes.warm(name, model.active, model.signature)
        except HotswapError as exc:
            log.error("an active version could not be brought up", model=name, reason=str(exc))
        async with self._routes.lock(name):
            with contextlib.suppress(HotswapError):
                await self._routes.republish(name)

    async def adopt(self, found: list[tuple[str, str, Path]], *, first: bool) -> None:
        """Versions that a source has: register the new ones; at first start activate the highest."""
        if first:
            await self._adopt_first(found)
        else:
            await self._registry.adopt(found)
        self._readiness.preload()
        for name in {model for model, _, _ in found} & set(self._catalogue.models):
            async with self._routes.lock(name):
                with contextlib.suppress(HotswapError):
                    await self._routes.republish(name)

    async def _adopt_first(self, found: list[tuple[str, str, Path]]) -> None:
        """Register model by model, and load one while the next is registered."""
        self._readiness.adopting = (
            True  # not ready before everything that is there has had its turn
        )
        try:
            names = sorted({*(model for model, _, _ in found), *self._catalogue.models})
            activations = []
            for name in names:
                mine = [each for each in found if each[0] == name]
                await self._registry.adopt(mine, activate=True)
                model = self._catalogue.models.get(name)
                if model is None or not model.activate or model.active or model.intent:
                    continue  # it was never to be, or the store says what is active
                if self._catalogue.versions[name]:
                    self._readiness.required.add(name)
                    activations.append(asyncio.ensure_future(self._activate_highest(name)))
            await asyncio.gather(*activations)
        finally:
            self._readiness.adopting = False
        self._readiness.check()

    async def _activate_highest(self, name: str) -> None:
        version = list(self._catalogue.versions[name])[-1]
        try:
            await self._switch(name, version)
        except HotswapError as exc:
            log.error(
                "the highest version could not be activated: the model is not served",
                model=name,
                version=version,
                reason=str(exc),
            )
