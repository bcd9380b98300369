"""Switches and rollbacks: warm the version, save what is meant, flip, save that it is done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from hotswap.control.catalogue import Catalogue
from hotswap.control.node import Node
from hotswap.control.operations import Operations
from hotswap.control.routes import Routes
from hotswap.core.lifecycle import Intent, ModelDocument, caught_up, decided, flipped
from hotswap.core.views import OperationView, SwitchView
from hotswap.errors import Conflict, HotswapError, NotFound
from hotswap.ipc.messages import Published
from hotswap.ports import Clock

log = structlog.get_logger("hotswap.control")

#: How long a switch waits for a warm version whose process is just being restarted.
_UP_SECONDS = 10.0


class Switching:
    """One switch of a model at a time; ``on_done`` is called after each flip.

    ``counts``: switches by (model, result); ``seconds``: (count, total seconds) by model.
    """

    def __init__(
        self,
        node: Node,
        catalogue: Catalogue,
        routes: Routes,
        operations: Operations,
        clock: Clock,
        keep_warm_seconds: float,
        on_done: Callable[[], None],
    ) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self.seconds: dict[str, tuple[int, float]] = {}
        self._node = node
        self._catalogue = catalogue
        self._routes = routes
        self._operations = operations
        self._clock = clock
        self._keep_warm = keep_warm_seconds
        self._on_done = on_done
        self._aborted: set[str] = set()
        self._preparing: dict[str, tuple[str, asyncio.Task[SwitchView]]] = {}

    async def change(
        self, name: str, version: str, kind: str, force: bool, key: str | None
    ) -> SwitchView:
        """A switch or rollback; a newer one of the model supersedes it while it is preparing."""
        before = self._catalogue.model(name).active
        operation = self._operations.begin(kind, name, version, before, key)
        earlier = self._preparing.get(name)
        if earlier is not None:
            earlier[1].cancel()
        task: asyncio.Task[SwitchView] = asyncio.get_running_loop().create_task(
            self._to_its_end(operation, force)
        )
        task.add_done_callback(_look_at)
        self._preparing[name] = (operation.id, task)
        try:
            # Shielded: a client that goes away does not undo what it asked for.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise await self._cancelled(operation) from None  # it had not even begun

    async def _to_its_end(self, operation: OperationView, force: bool) -> SwitchView:
        """Carry it out and keep how it ended, whether or not its client still waits."""
        name = operation.model
        try:
            answer = await self._carry_out(operation, force)
        except asyncio.CancelledError:
            if self._preparing.get(name, ("", None))[0] == operation.id:
                raise  # neither superseded nor aborted: control itself ends
            raise await self._cancelled(operation) from None
        except HotswapError as exc:
            await self._operations.update(operation.id, state="failed", reason=str(exc))
            self._count(name, "failed")
            async with self._routes.lock(name):  # the data plane tells the reason too
                with contextlib.suppress(HotswapError):
                    await self._routes.republish(name)
            raise
        self._count(name, "done")
        return answer

    async def _cancelled(self, operation: OperationView) -> Conflict:
        """What the caller of a switch that was aborted or superseded is told."""
        state, reason = "superseded", "a newer switch of this model began"
        if operation.id in self._aborted:
            self._aborted.discard(operation.id)
            state, reason = "aborted", "it was aborted"
        await self._operations.update(operation.id, state=state, reason=reason)
        self._count(operation.model, state)
        return Conflict(f"the {operation.kind} to {operation.version!r} was {state}: {reason}")

    async def abort(self, id: str) -> OperationView:
        """Give up a switch that is still preparing. Raises `NotFound`; `Conflict` if it is not."""
        operation = self._operations.get(id)
        preparing = self._preparing.get(operation.model)
        if operation.state != "preparing" or preparing is None or preparing[0] != id:
            why = f": {operation.reason}" if operation.reason else ""
            raise Conflict(f"operation {id} cannot be aborted: it is {operation.state}{why}")
        self._aborted.add(id)
        del self._preparing[operation.model]
        preparing[1].cancel()
        await asyncio.wait([preparing[1]])
        self._routes.give_up(operation.model, operation.version)
        return await self._operations.update(id, state="aborted", reason="it was aborted")

    def give_up(self, model: str, version: str) -> None:
        """A switch to that version is not wanted any more: end it if it is still preparing."""
        id, task = self._preparing.get(model, ("", None))
        if task is None or self._operations.get(id).version != version:
            return
        self._aborted.add(id)
        del self._preparing[model]
        task.cancel()

    async def drop_intent(self, model: str) -> None:
        """A flip that was decided before control died is not wanted any more. Raises `StoreError`."""
        await self._catalogue.amend(model, lambda now: msgspec.structs.replace(now, intent=None))

    async def _carry_out(self, operation: OperationView, force: bool) -> SwitchView:
        name, version = operation.model, operation.version
        began = self._clock.monotonic()
        model = self._catalogue.model(name)
        public = None if force else model.signature
        if operation.kind == "rollback":
            # What it serves is what it served: a forced switch since must not bar the way back.
            public = model.signatures.get(version, public)
        while True:
            await self._routes.warm(name, version, public)
            await self._node.answering(name, version, _UP_SECONDS)
            async with self._routes.lock(name):
                if not self._node.warm(name, version):
                    continue  # its time was over, or its memory was needed: it is warmed again
                if self._preparing.get(name, ("", None))[0] == operation.id:
                    del self._preparing[name]  # from here on nothing supersedes it
                prepare_ms = (self._clock.monotonic() - began) * 1000
                model = self._catalogue.model(name)
                await self._operations.update(
                    operation.id,
                    save=operation.kind != "rollback",  # which waits for nothing
                    state="flipping",
                    prepare_ms=prepare_ms,
                )
                published = await self._flip(
                    model, Intent(version, operation.id, operation.kind, 0, force)
                )
                break
        seconds = self._clock.monotonic() - began
        count, total = self.seconds.get(name, (0, 0.0))
        self.seconds[name] = (count + 1, total + seconds)
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
        self._on_done()
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
        table = self._routes.table(model, intent.version, signature, withdrawn=None)
        intent = msgspec.structs.replace(intent, revision=table.revision)
        if not lowering:
            await self._catalogue.amend(name, lambda now: decided(now, intent))
        try:
            published = await self._node.publish(table)
        except HotswapError:
            if not lowering:
                await self._catalogue.amend(
                    name,
                    lambda now: msgspec.structs.replace(now, intent=model.intent),
                    lowering=True,
                )
            raise
        await self._catalogue.amend(
            name, lambda now: flipped(now, intent, signature), lowering=True
        )
        if model.active is not None and model.active != intent.version:
            until = self._clock.monotonic() + self._keep_warm
            self._routes.warm_until[(name, model.active)] = until
        self._routes.warm_until.pop((name, intent.version), None)
        return published

    def _count(self, model: str, result: str) -> None:
        self.counts[(model, result)] = self.counts.get((model, result), 0) + 1

    async def roll_forward(self, model: ModelDocument) -> None:
        """Finish a flip that a former control process had decided."""
        intent = model.intent
        assert intent is not None
        log.info("an unfinished flip is rolled forward", model=model.name, to=intent.version)
        try:
            public = None if intent.forced else model.signature
            await self._routes.warm(model.name, intent.version, public)
        except HotswapError:
            # It cannot be finished: what was active stays so.
            await self._catalogue.amend(
                model.name, lambda now: msgspec.structs.replace(now, intent=None)
            )
            if model.active is not None:
                await self._routes.warm(model.name, model.active, model.signature)
            raise
        async with self._routes.lock(model.name):
            await self._flip(self._catalogue.model(model.name), intent)
        await self._finished(self._catalogue.model(model.name))

    async def _finished(self, model: ModelDocument) -> None:
        """The operation that flipped it last is done, although control died before it said so."""
        with contextlib.suppress(NotFound):
            if self._operations.get(model.operation).state == "failed":
                await self._operations.update(
                    model.operation,
                    state="done",
                    reason="control was restarted meanwhile",
                    revision=model.revision,
                )

    async def follow(self, model: ModelDocument) -> ModelDocument:
        """What was published and could not be saved before control was restarted is saved now."""
        table = self._node.tables.get(model.name)
        if table is None or table.stable not in self._catalogue.registered(model.name):
            await self._finished(model)
            return model
        stable, revision, signature = table.stable, table.revision, table.signature
        now = caught_up(model, stable, revision, signature)
        if now != model:
            log.warning("the store was behind the data plane", model=model.name, active=now.active)
            now = await self._catalogue.amend(
                model.name,
                lambda latest: caught_up(latest, stable, revision, signature),
                lowering=True,
            )
        await self._finished(now)
        return now


def _look_at(task: asyncio.Task[Any]) -> None:
    """Its end is kept in its operation: nobody need wait for it."""
    if not task.cancelled():
        task.exception()
