"""What leads to one loaded version from the event loop that divides requests, and back.

`InlineLink` makes an `InlineRunner` look like the connection to a host's process, so that
requests are divided by the same code wherever a version runs. `RemoteRunner` is the other way
round: a process, as whoever holds a lease within the program calls it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from hotswap.core.routing import HostRef
from hotswap.core.signature import Signature
from hotswap.errors import ModelFailed
from hotswap.ipc.frames import decode_tensor
from hotswap.ports import Array
from hotswap.serving import link
from hotswap.serving.inline_runner import InlineRunner, Reply
from hotswap.serving.link import Outputs, Pending
from hotswap.serving.mirror import outputs_of

_T = TypeVar("_T")


class InlineLink:
    """One runner. Lives on the loop that divides requests; offers what `HostLink` does there.

    ``on_thread``: every call runs on the runner's own thread, so that one that hangs holds up
    nobody else.
    """

    def __init__(self, ref: HostRef, runner: InlineRunner, *, on_thread: bool) -> None:
        self.ref = ref
        self.on_thread = on_thread
        self.outstanding_rows = 0
        self.incarnation = 1
        self.closed = False
        self.connected = asyncio.Event()
        self.connected.set()
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        self._next = 0
        self._calls: dict[int, tuple[Pending, asyncio.Task[None]]] = {}

    def call(self, pending: Pending) -> int:
        """Run it; its number."""
        self._next += 1
        number = self._next
        if self.closed:
            if not pending.future.done():
                pending.future.set_exception(ModelFailed("the version was unloaded"))
            return number
        self.outstanding_rows += pending.rows
        task = self._loop.create_task(self._run(number, pending))
        self._calls[number] = pending, task
        return number

    def cancel(self, number: int) -> None:
        """Nobody waits for it any more. What runs already cannot be stopped."""
        found = self._calls.pop(number, None)
        if found is not None:
            pending, task = found
            self.outstanding_rows -= pending.rows
            task.cancel()

    def close(self) -> None:
        """The runner is gone."""
        self.closed = True
        self.connected.clear()
        for number, (pending, _) in list(self._calls.items()):
            self.cancel(number)
            if not pending.future.done():
                pending.future.set_exception(ModelFailed("the version was unloaded"))

    async def _run(self, number: int, pending: Pending) -> None:
        reply: Reply | None = None
        error: Exception | None = None
        try:
            inputs = {
                layout.name: decode_tensor(raw, layout, pending.rows)
                for layout, raw in zip(pending.layout, pending.raws, strict=True)
            }
            reply = await self._runner.predict(
                inputs, pending.outputs, pending.rows, pending.deadline,
                shadow=pending.shadow, on_thread=self.on_thread,
            )  # fmt: skip
        except Exception as exc:  # noqa: BLE001 - whoever waits is told
            error = exc
        if self._calls.pop(number, None) is None:
            return
        self.outstanding_rows -= pending.rows
        if pending.future.done():
            return
        if reply is None:
            assert error is not None
            pending.future.set_exception(error)
            return
        outputs = Outputs(pending.rows)
        outputs.extend(reply.outputs.items())
        pending.future.set_result(
            link.Reply(outputs, 0, pending.rows, reply.queue_ns, reply.compute_ns)
        )


class Away(Protocol):
    """The loop on which links live, for those who are not on it."""

    async def on_loop(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do it there and wait here."""
        ...

    def outstanding(self, host: str) -> int:
        """Rows that a host has to do."""
        ...

    async def ask_host(
        self,
        host: str,
        signature: Signature,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
    ) -> link.Reply:
        """One call of one host, on that loop."""
        ...


class RemoteRunner:
    """One host's process, called from any loop as an `InlineRunner` is."""

    def __init__(self, away: Away, host: str, signature: Signature) -> None:
        self._away = away
        self._host = host
        self._signature = signature

    @property
    def pending_rows(self) -> int:
        """Rows that wait or run there."""
        return self._away.outstanding(self._host)

    async def predict(
        self,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
    ) -> Reply:
        """Raises what `hotswap.ports.Lease.predict` does."""
        away = self._away
        reply = await away.on_loop(
            away.ask_host(self._host, self._signature, inputs, outputs, rows, deadline)
        )
        return Reply(outputs_of(reply), reply.queue_ns, reply.compute_ns)


class Runner(Protocol):
    """What a lease of the engine calls: `InlineRunner` or `RemoteRunner`."""

    @property
    def pending_rows(self) -> int: ...

    async def predict(
        self,
        inputs: Mapping[str, Array],
        outputs: tuple[str, ...],
        rows: int,
        deadline: float,
    ) -> Reply: ...


__all__ = ["InlineLink", "RemoteRunner", "Runner"]
