"""The supervisor's hosts: a wanted list that it keeps running without asking anyone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

import structlog

from hotswap.app import platform
from hotswap.app.nurseries import Nurseries
from hotswap.app.processes import Backoff, Watch, describe_exit, pair
from hotswap.app.spawner import Spawner
from hotswap.ipc import messages
from hotswap.ipc.channel import Channel
from hotswap.ipc.messages import (
    Failed,
    Fork,
    Forked,
    HostSpec,
    HostState,
    Live,
    LoadReport,
    Ready,
    Stop,
)
from hotswap.ipc.words import Health

log = structlog.get_logger("hotswap.supervisor")

_STOP_SECONDS = 5.0
_SERVED_SECONDS = 0.5
_RETRY_SECONDS = 1.0


class Host:
    """One wanted host through all its incarnations."""

    def __init__(self, keeper: Hosts, spec: HostSpec) -> None:
        self.spec = spec
        self.state = "starting"
        self.report: LoadReport | None = None
        self.error = ""
        self.error_type = ""
        self.restarts = 0
        self.incarnation = 0
        self.watch: Watch | None = None
        self._keeper = keeper
        self._channel: Channel | None = None
        self._backoff = Backoff()
        self._deadline: asyncio.TimerHandle | None = None
        self._killed_for = ""
        self._was_ready = False
        self.forking = True  # until the nursery has told what came of it

    def view(self) -> HostState:
        """For control."""
        return HostState(
            spec=self.spec,
            state=self.state,
            pid=self.watch.pid if self.watch is not None and self.watch.alive else None,
            incarnation=self.incarnation,
            report=self.report,
            error=self.error,
            error_type=self.error_type,
            restarts=self.restarts,
        )

    async def start(self) -> None:
        """Fork or spawn it and give it its spec."""
        self.incarnation += 1
        self._killed_for = ""
        try:
            ours, theirs = pair()
        except OSError as exc:
            self._not_started(f"no process can be started: {exc.strerror}")
            return
        self._channel = await Channel.attach(
            ours, messages.encode, messages.decode, self._heard, lambda: None
        )
        self._channel.send(Live(self.spec, self.incarnation))
        fork = Fork(self.spec.host, self.incarnation, self.spec.slot)
        self._keeper.nurseries.fork(fork, self.spec.artifact.runtime, theirs)

    def forked(self, message: Forked) -> None:
        """The nursery's word."""
        if message.incarnation != self.incarnation:
            return
        if not message.pid:
            self._not_started(message.error)
            return
        self.forking = False
        self.watch = Watch(message.pid, self._exited)
        if self.state == "stopping":
            self.watch.kill()
            return
        self._deadline = asyncio.get_running_loop().call_later(
            self.spec.load_seconds, self._load_deadline
        )

    def _not_started(self, why: str) -> None:
        """No process came of it. One that has served is tried again; others fail."""
        self.forking = False
        if self._channel is not None:
            self._channel.close()
        if self.state == "restarting":
            log.error("a host cannot be started again yet", host=self.spec.host, reason=why)
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._restart)
            return
        if self.state != "stopping":
            self._failed(why, "OSError")
        self._keeper.gone(self)

    def _load_deadline(self) -> None:
        self._kill(f"loading took longer than {self.spec.load_seconds:g} s", "TimeoutError")

    def _kill(self, why: str, kind: str) -> None:
        self._killed_for = why
        self.error_type = kind
        if self.watch is not None:
            self.watch.kill()

    def _heard(self, message: object) -> None:
        if isinstance(message, Ready):
            self._cancel_deadline()
            if self.state == "stopping":
                return
            self.state = "ready"
            self._was_ready = True
            self.report = message.report
            self.error = self.error_type = ""
            self._keeper.changed(self)
        elif isinstance(message, Failed):
            self.error, self.error_type = message.error, message.error_type

    def _failed(self, error: str, kind: str) -> None:
        self.state = "failed"
        self.error, self.error_type = error, kind
        self._cancel_deadline()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def check(self, now_ns: int, health: Health) -> None:
        """Kill it if it hangs in a call or has grown past its limit."""
        if self.state != "ready" or self.watch is None or not self.watch.alive:
            return
        since = health.busy_since(self.spec.slot)
        limit = self.spec.settings.hang_seconds
        if since and (now_ns - since) / 1e9 > limit:
            self._kill(f"one call took longer than {limit:g} s", "TimeoutError")

    def check_memory(self) -> None:
        """Kill it if what it alone holds is more than it may."""
        most = self.spec.settings.memory_mb
        if most is None or self.watch is None or not self.watch.alive:
            return
        held = platform.own_memory(self.watch.pid)
        if held > most * 1024 * 1024:
            self._kill(f"it held {held >> 20} MiB of memory and may hold {most} MiB", "MemoryError")

    def _exited(self, status: int) -> None:
        """The process is gone: was it asked to, did it fail to load, or is it to be restarted?"""
        self._cancel_deadline()
        if self._channel is not None:
            self._channel.close()
        if self.state == "stopping":
            self._keeper.gone(self)
            return
        how = self._killed_for or describe_exit(status)
        if self.state == "starting" and not self._was_ready:
            # What it said itself before it went says more than how it went.
            said = self.error or self._killed_for or f"its process ended while loading: {how}"
            self._failed(said, self.error_type or "ProcessDied")
            self._keeper.gone(self)
            return
        log.warning(
            "a host ended and is started again",
            model=self.spec.model, version=self.spec.version, how=how, restarts=self.restarts + 1,
        )  # fmt: skip
        served = self.state == "ready"
        if served:
            self.error = how
        self.state = "restarting"
        self.restarts += 1
        self._keeper.changed(self)
        lived = time.monotonic() - self.watch.started if self.watch is not None else 0.0
        delay = self._backoff.delay(lived)
        if served:
            # A request ended it, not its loading: others wait for it, and their deadlines run.
            delay = min(delay, _SERVED_SECONDS)
        asyncio.get_running_loop().call_later(delay, self._restart)

    def _restart(self) -> None:
        if self.state == "restarting" and not self.forking:
            self.forking = True
            self._keeper.spawn(self.start())

    def stop(self) -> None:
        """No table names it: let it go; kill it if it does not."""
        self.state = "stopping"
        self._cancel_deadline()
        if self._channel is not None:
            self._channel.send(Stop())
        if self.watch is not None and self.watch.alive:
            if not self._was_ready:
                self.watch.kill()  # still loading: it reads no messages
            else:
                asyncio.get_running_loop().call_later(_STOP_SECONDS, self.watch.kill)
        elif not self.forking:
            self._keeper.gone(self)


class Hosts:
    """All of them. ``on_changed`` and ``on_gone`` tell control; ``spawn``: without a nursery, and
    with ``environment`` beside what every child gets.
    """

    def __init__(
        self,
        health: Health,
        health_fd: int,
        runtime_dir: str,
        on_changed: Callable[[HostState], None],
        on_gone: Callable[[HostState], None],
        *,
        spawn: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.hosts: dict[str, Host] = {}
        self.nurseries: Nurseries | Spawner = (
            Spawner(health_fd, runtime_dir, self._forked, environment or {})
            if spawn
            else Nurseries(health_fd, runtime_dir, self._forked)
        )
        self._health = health
        self._runtime_dir = runtime_dir
        self._on_changed = on_changed
        self._on_gone = on_gone
        self._tasks: set[asyncio.Task[None]] = set()
        self._beats = 0

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run a start in the background."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def want(self, spec: HostSpec) -> None:
        """Start it, and again whenever it dies, until `unwant`."""
        if spec.host in self.hosts:
            self.changed(self.hosts[spec.host])
            return
        host = self.hosts[spec.host] = Host(self, spec)
        self.spawn(host.start())

    def unwant(self, name: str) -> None:
        """Stop it for good."""
        host = self.hosts.get(name)
        if host is not None and host.state != "stopping":
            host.stop()

    def _forked(self, message: Forked) -> None:
        host = self.hosts.get(message.host)
        if host is not None:
            host.forked(message)

    def changed(self, host: Host) -> None:
        self._on_changed(host.view())

    def gone(self, host: Host) -> None:
        """It will not be started again."""
        self.hosts.pop(host.spec.host, None)
        Path(self._runtime_dir, f"h{host.spec.host}").unlink(missing_ok=True)
        self._on_gone(host.view())

    def check(self) -> None:
        """Called a few times a second: hang and memory limits."""
        now = time.monotonic_ns()
        self._beats += 1
        for host in list(self.hosts.values()):
            host.check(now, self._health)
            if self._beats % 4 == 0:
                host.check_memory()

    def wanted(self) -> list[HostSpec]:
        """What would have to run after a restart of the node."""
        # Those that are starting too: the last run's may be, and only what a table names returns.
        wanted = ("starting", "ready", "restarting")
        return [h.spec for h in self.hosts.values() if h.state in wanted]

    def views(self) -> tuple[HostState, ...]:
        return tuple(host.view() for host in self.hosts.values())

    def pids(self) -> set[int]:
        """Of those that are alive."""
        return {h.watch.pid for h in self.hosts.values() if h.watch is not None and h.watch.alive}

    def stop_all(self) -> None:
        """At the end of the node. What the nursery has not forked yet is not waited for."""
        for host in list(self.hosts.values()):
            if host.state != "stopping":
                host.stop()
            if host.forking and host.spec.host in self.hosts:
                self.gone(host)
