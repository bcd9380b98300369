"""Rollouts' candidates in processes of their own, beside an engine: what they do costs only them.

The processes are the server's hosts (`hotswap.app.host`), started, watched and restarted by the
server's keeper of hosts (`hotswap.app.hosts`), on control's loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

import structlog

from hotswap.app import platform
from hotswap.app.hosts import Hosts
from hotswap.core.routing import HostRef
from hotswap.ipc.messages import HostSpec, HostState
from hotswap.ipc.words import HEALTH_WORDS, Health, Words
from hotswap.serving.inline_split import SplitLoop

log = structlog.get_logger("hotswap.engine")

_CONNECT_SECONDS = 10.0
_CHECK_SECONDS = 0.25
_STOP_SECONDS = 1.0


class EngineProcesses:
    """Hosts in processes. ``on_ready`` hears of one once requests can reach it, and again
    after each of its restarts; ``on_changed`` of any other change; ``on_gone`` of its end.
    """

    def __init__(
        self,
        split: SplitLoop,
        runtime_dir: str,
        on_ready: Callable[[HostState], None],
        on_changed: Callable[[HostState], None],
        on_gone: Callable[[HostState], None],
    ) -> None:
        self._split = split
        self._on_ready = on_ready
        self._on_changed = on_changed
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._words = Words.create("hotswap-health", HEALTH_WORDS)
        self._health = Health(self._words)
        # What a version imports is found there as it is within this program.
        path = os.pathsep.join(os.path.abspath(each) for each in sys.path)
        self._hosts = Hosts(
            self._health, self._words.fd, runtime_dir, self._changed, self._gone,
            spawn=True, environment={"PYTHONPATH": path},
        )  # fmt: skip
        self._ended = asyncio.Event()
        self._connecting: set[asyncio.Task[None]] = set()
        self._checks = self._loop.call_later(_CHECK_SECONDS, self._check)
        split.use(self._health, runtime_dir)

    def start(self, spec: HostSpec) -> None:
        """Start it, and again whenever it dies, until `stop`."""
        self._hosts.want(spec)

    def stop(self, host: str) -> None:
        """Let it finish what it has, then end it."""
        self._hosts.unwant(host)

    def memory_of(self, pid: int) -> int:
        """Bytes that only that process holds."""
        return platform.own_memory(pid)

    def _check(self) -> None:
        self._hosts.check()
        self._checks = self._loop.call_later(_CHECK_SECONDS, self._check)

    def _changed(self, state: HostState) -> None:
        if state.state != "ready" or state.incarnation > 1:
            self._on_changed(state)
            return
        task = self._loop.create_task(self._connect(state))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, state: HostState) -> None:
        """Ready is what can be reached: the first request must not find a link that is not up."""
        spec = state.spec
        ref = HostRef(spec.host, f"h{spec.host}", spec.slot)
        version = (spec.model, spec.version, spec.twin)
        try:
            await self._split.on_loop(
                self._split.connect(ref, version, spec.settings.pure, _CONNECT_SECONDS)
            )
        except TimeoutError:
            log.error("a candidate's process cannot be reached", host=spec.host)
            self.stop(spec.host)
            return
        self._on_ready(state)

    def _gone(self, state: HostState) -> None:
        self._split.removed(state.spec.host)
        self._on_gone(state)
        self._ended.set()

    async def close(self) -> None:
        """End every process, and wait until they are gone: no request is in flight any more."""
        self._checks.cancel()
        self._hosts.stop_all()
        kill = self._loop.call_later(_STOP_SECONDS, self._kill)
        while self._hosts.hosts:
            self._ended.clear()
            await self._ended.wait()
        kill.cancel()
        os.close(self._words.fd)

    def _kill(self) -> None:
        for host in list(self._hosts.hosts.values()):
            if host.watch is not None:
                host.watch.kill()


__all__ = ["EngineProcesses"]
