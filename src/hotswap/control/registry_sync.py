"""Following a model registry: look, do what its aliases ask for, tell it what was decided.

An outage changes nothing that serves: the last state that was seen stays in force.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from hotswap.control.interface import Control
from hotswap.control.registry_asking import Asking, RegistrySpec
from hotswap.control.registry_followed import Followed
from hotswap.core.registry_views import Listed, RegistryView
from hotswap.core.registry_wishes import Memory, local_name
from hotswap.errors import HotswapError, StoreError
from hotswap.ports import Clock, Store

log = structlog.get_logger("hotswap.registry")

_KIND: Final = "registry"
_AT_ONCE: Final = 4
_LONGEST_WAIT: Final = 60.0
_JITTER: Final = 0.1
_STORE_SECONDS: Final = 1.0


class RegistrySync:
    """One registry. ``coin`` gives a number in [0, 1) for the jitter of the polls."""

    def __init__(
        self,
        control: Control,
        asking: Asking,
        store: Store,
        clock: Clock,
        spec: RegistrySpec,
        coin: Callable[[], float],
    ) -> None:
        self._control = control
        self._asking = asking
        self._store = store
        self._clock = clock
        self._spec = spec
        self._coin = coin
        self._followed: dict[str, Followed] = {}
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._wake = asyncio.Event()
        self._look_at = 0.0
        self._hinted = False
        self._outages = 0
        self._read_at: float | None = None
        self._down_since: float | None = None
        self._error = "it was not asked yet"

    # --- for others

    def hint(self) -> None:
        """Something may have changed there: look at once."""
        self._hinted = True
        self._wake.set()

    async def view(self) -> RegistryView:
        """As clients are shown it."""
        spec = self._spec
        return RegistryView(
            kind=spec.kind,
            uri=spec.uri,
            stable_alias=spec.stable_alias,
            candidate_alias=spec.candidate_alias,
            poll_seconds=spec.poll_seconds,
            write=spec.write,
            read_at=self._read_at,
            down_since=self._down_since,
            error=self._error,
            models=tuple([await self._followed[name].view() for name in sorted(self._followed)]),
        )

    # --- the loop

    async def run(self) -> None:
        """For ever. Raises nothing but cancellation."""
        await self._remembered()
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                self._wake.clear()
                if self._hinted or self._clock.monotonic() >= self._look_at:
                    self._hinted = False
                    await self._look()
                    self._attend(self._followed)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self._look_at - self._clock.monotonic())):
                        await self._wake.wait()
        finally:
            listening.cancel()
            for task in self._busy.values():
                task.cancel()

    async def _remembered(self) -> None:
        """What was acted upon before this process."""
        stored = None
        while stored is None:
            try:
                stored = await self._store.scan(_KIND)
            except StoreError as exc:
                log.warning("the registry waits for the store", reason=str(exc))
                await asyncio.sleep(_STORE_SECONDS)
        for key, value, _ in stored:
            try:
                memory = msgspec.msgpack.decode(value, type=Memory)
            except msgspec.MsgspecError as exc:
                log.error(
                    "what was remembered of a model cannot be read", name=key, reason=str(exc)
                )
                continue
            if not self._spec.names or memory.name in self._spec.names:
                self._follow(memory, saved=True)

    async def _listen(self) -> None:
        """A rollout that ends is told of at once, not at the next look."""
        async for event in self._control.events():
            if event.kind == "rollout":
                self._attend([f.memory.name for f in self._followed.values()
                              if f.memory.model == event.model])  # fmt: skip

    async def _look(self) -> None:
        asked = {
            name: [v for v in (f.memory.stable, f.memory.candidate) if v is not None]
            for name, f in self._followed.items()
        }
        try:
            listed = await self._asking.look(asked)
        except HotswapError as exc:
            self._out(str(exc))
            return
        if self._down_since is not None:
            log.info("the registry answers again", uri=self._spec.uri)
        self._read_at, self._down_since = self._clock.wall(), None
        self._outages, self._error = 0, ""
        self._schedule(self._spec.poll_seconds)
        for each in listed:
            self._seen(each)

    def _out(self, reason: str) -> None:
        if self._down_since is None:
            self._down_since = self._clock.wall()
            log.warning(
                "the registry cannot be asked; what was seen last stays in force", reason=reason
            )
        self._error = reason
        wait = self._spec.poll_seconds * 2.0 ** min(self._outages, 10)
        self._outages += 1
        self._schedule(min(wait, max(_LONGEST_WAIT, self._spec.poll_seconds)))

    def _schedule(self, seconds: float) -> None:
        jitter = 1 + _JITTER * (2 * self._coin() - 1)
        self._look_at = self._clock.monotonic() + seconds * jitter

    def _seen(self, listed: Listed) -> None:
        followed = self._followed.get(listed.name)
        if followed is None:
            name = local_name(listed.name)
            memory = Memory(listed.name, name, since=self._clock.wall())
            other = next((f for f in self._followed.values() if f.memory.model == name), None)
            followed = self._follow(memory)
            if other is not None:
                followed.problem = (
                    f"its name here would be {name!r}, as that of {other.memory.name!r} is: it is "
                    "not followed"
                )
                log.warning("following the registry", model=name, reason=followed.problem)
        followed.listed = listed

    def _follow(self, memory: Memory, *, saved: bool = False) -> Followed:
        followed = Followed(
            memory, self._spec, self._control, self._asking, self._clock, self._save, self._report,
            saved=saved,
        )  # fmt: skip
        self._followed[memory.name] = followed
        return followed

    async def _save(self, memory: Memory) -> None:
        await self._store.put(_KIND, memory.name, msgspec.msgpack.encode(memory))

    def _report(self, rollout: str) -> str:
        return f"{self._control.info()['control']}/api/v1/rollouts/{rollout}"

    # --- model by model, a few at once: none waits for another's download

    def _attend(self, names: list[str] | dict[str, Followed]) -> None:
        for name in list(names):
            if self._followed[name].problem:
                continue
            if name in self._busy:
                self._again.add(name)
                continue
            task = asyncio.create_task(self._attend_one(name))
            self._busy[name] = task
            task.add_done_callback(lambda task, name=name: self._attended(task, name))  # type: ignore[misc]

    async def _attend_one(self, name: str) -> None:
        async with self._slots:
            try:
                await self._followed[name].attend(reachable=self._down_since is None)
            except HotswapError as exc:
                log.warning("following the registry waits", model=name, reason=str(exc))

    def _attended(self, task: asyncio.Task[None], name: str) -> None:
        del self._busy[name]
        if task.cancelled():
            return
        if task.exception() is not None:
            log.error("following the registry failed", model=name, exc_info=task.exception())
        if name in self._again:
            self._again.discard(name)
            self._attend([name])
