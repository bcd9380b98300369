"""The supervisor: the bottom of the tree. Starts, watches, restarts, relays; decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from hotswap.app import folders, logs, platform
from hotswap.app.clock import SystemClock
from hotswap.app.counts import Counts
from hotswap.app.hosts import Hosts
from hotswap.app.last import LastRun
from hotswap.app.processes import Backoff, Watch, describe_exit, pair, reap_strangers, start
from hotswap.app.publisher import Publisher
from hotswap.app.recorders import Recorders, records_settings, records_spec
from hotswap.app.sockets import bind_one, bind_slots
from hotswap.app.workers import Workers
from hotswap.config import Settings, credentials
from hotswap.errors import ConfigError, HotswapError
from hotswap.ipc import messages
from hotswap.ipc.channel import Channel
from hotswap.ipc.messages import (
    AllWarm,
    Counted,
    CountedSaved,
    Drained,
    HostChanged,
    HostGone,
    HostState,
    Preload,
    Publish,
    Published,
    RecorderInit,
    Snapshot,
    StableOnly,
    StartHost,
    Stop,
    StopHost,
    Tripped,
    Unready,
    Wanted,
    WorkersChanged,
    WorkerSpec,
)
from hotswap.ipc.words import HEALTH_WORDS, MODELS, Epoch, Health, Words

log = structlog.get_logger("hotswap.supervisor")

_CHECK_SECONDS = 0.25


class Control:
    """The control process as the supervisor sees it: it may be dead."""

    def __init__(self, supervisor: Supervisor, listener: socket.socket) -> None:
        self._supervisor = supervisor
        self._listener = listener
        self._channel: Channel | None = None
        self._backoff = Backoff()
        self.watch: Watch | None = None

    async def start(self) -> None:
        ours, theirs = pair()
        arguments = [f"--channel={theirs.fileno()}", f"--listener={self._listener.fileno()}"]
        descriptors = [theirs.fileno(), self._listener.fileno()]
        process = start("hotswap.app.control", arguments, descriptors, credentials())
        theirs.close()
        process.returncode = 0  # the watch collects it, not the Popen object
        self.watch = Watch(process.pid, self._exited)
        self._channel = channel = await Channel.attach(
            ours, messages.encode, messages.decode, self._supervisor.heard, lambda: None
        )
        # A flip that the one before asked for: the new one must know how it ended.
        await self._supervisor.flipped()
        channel.send(self._supervisor.snapshot())
        self._supervisor.told()
        self._supervisor.tell_drained()

    @property
    def alive(self) -> bool:
        return self.watch is not None and self.watch.alive

    def send(self, message: object) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def _exited(self, status: int) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._supervisor.control_gone()
        if self._supervisor.stopping:
            return
        log.warning("control ended and is started again", how=describe_exit(status))
        lived = SystemClock().monotonic() - (self.watch.started if self.watch else 0.0)
        asyncio.get_running_loop().call_later(self._backoff.delay(lived), self._restart)

    def _restart(self) -> None:
        if not self._supervisor.stopping:
            self._supervisor.spawn(self.start())


class Supervisor:
    """Joins the parts. Everything that it keeps can be rebuilt from `Last` and from control."""

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        sockets: list[socket.socket],
        data_address: tuple[str, int],
        control_socket: socket.socket,
        control_address: tuple[str, int],
        runtime_dir: str,
    ) -> None:
        self.stopping = False
        self.settings = settings
        self._reread = reread
        self._data_address = data_address
        self._control_address = control_address
        self._runtime_dir = runtime_dir
        self._clock = SystemClock()
        self._started_at = self._clock.wall()
        self._warm = False
        self._epoch = Epoch(Words.create("hotswap-epoch", MODELS))
        self._health = Health(Words.create("hotswap-health", HEALTH_WORDS))
        health_fd = self._health.words.fd
        self._hosts = Hosts(
            self._health,
            health_fd,
            runtime_dir,
            self._host_changed,
            self._host_gone,
            spawn=settings.spawns_hosts(),
        )
        self._workers = Workers(
            sockets,
            self._epoch.words.fd,
            health_fd,
            self._worker_spec,
            self._drained,
            self._wanted,
            self._workers_changed,
            self._counted,
            self._tripped,
        )
        self._publisher = Publisher(runtime_dir, self._epoch, self._workers)
        self._control = Control(self, control_socket)
        self._run = secrets.token_hex(4)
        self._counts = Counts(self._control.send)
        self._records = records_spec(settings)
        self._recorder = Recorders(self._recorder_init, self.child_ended)
        self._last = LastRun(settings.state_dir / "last.msgpack")
        self._restoring: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flips: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._child_ended = asyncio.Event()
        self._unsaved = False
        self._reloading = asyncio.Lock()

    # --- life

    async def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit status."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminate, self.settings.drain_seconds)
        loop.add_signal_handler(signal.SIGINT, self._terminate, 0.0)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.spawn(self._reload()))
        runtimes = self._restore()
        self._hosts.nurseries.open(runtimes)
        await asyncio.gather(self._control.start(), self._workers.open(), self._recorder.start())
        log.info(
            "serving", data=_url(self._data_address), control=_url(self._control_address),
            workers=len(self._workers.sockets), pid=os.getpid(),
        )  # fmt: skip
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _CHECK_SECONDS)
            self._hosts.check()
            self._workers.check()
            self._counts.check(self._clock.monotonic())
            reap_strangers(self._pids())
            if self._unsaved and not self.stopping:
                self._save_now()
        return 0

    async def flipped(self) -> None:
        """Wait until no flip is under way (250 ms at most)."""
        while self._flips:
            await asyncio.wait(self._flips)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in the background; its failure is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._flips.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the supervisor failed", exc_info=task.exception())

    def _pids(self) -> set[int]:
        pids = self._hosts.pids() | self._workers.pids() | set(self._hosts.nurseries.pids)
        pids |= self._recorder.pids()
        if self._control.watch is not None:
            pids.add(self._control.watch.pid)
        return pids

    # --- the run before

    def _restore(self) -> list[str]:
        """Start the last run's hosts and commit its tables; the runtimes that they need."""
        last = self._last.read()
        if last is None:
            return []
        trusted = set(self.settings.trust_digests)
        hosts = [
            spec
            for spec in last.hosts
            if not spec.runs_code or self.settings.trust_code or spec.artifact.digest in trusted
        ]
        for table in last.tables:
            self._publisher.restore(table)
        self._publisher.restore_lowered(last.lowered, last.tripped)
        named = {host for table in last.tables for host in table.hosts()}
        wanted = [spec for spec in hosts if spec.host in named]
        self._restoring = {spec.host for spec in wanted}
        for spec in wanted:
            self._hosts.want(spec)
        return sorted({spec.artifact.runtime for spec in wanted})

    def _save(self) -> None:
        """Soon: many hosts change at once when a node starts."""
        self._unsaved = True

    def _save_now(self) -> None:
        self._unsaved = False
        published = self._publisher
        self._last.write(
            self._hosts.wanted(), published.tables.values(), published.lowered,
            published.tripped.values(),
        )  # fmt: skip

    # --- what children say

    def heard(self, message: object) -> None:
        """Control's wishes."""
        if isinstance(message, StartHost):
            self._hosts.want(message.spec)
        elif isinstance(message, StopHost):
            self._hosts.unwant(message.host)
        elif isinstance(message, Publish):
            self._flips.add(self.spawn(self._publish(message)))
        elif isinstance(message, StableOnly):
            if self._publisher.stable_only(message.index):
                self._save_now()  # a restart must not raise it again
        elif isinstance(message, CountedSaved):
            self._counts.saved(message.sequence)
        elif isinstance(message, Preload):
            self._hosts.nurseries.want(message.runtimes)
        elif isinstance(message, AllWarm):
            self._all_warm()

    async def _publish(self, message: Publish) -> None:
        before = self._publisher.tables.get(message.table.index)
        published: Published = await self._publisher.publish(message.table)
        lowered = before is not None and before.split is not None and message.table.split is None
        if lowered or (before is not None and before.stable != message.table.stable):
            self._save_now()  # before it is answered: a restart must not serve what was left
        else:
            self._save()
        self._control.send(published)
        self._drained(message.table.index)

    def _all_warm(self) -> None:
        if not self._warm:
            self._warm = True
            self._workers.started()
            self._hosts.nurseries.keep_spare()

    def _host_changed(self, state: HostState) -> None:
        self._control.send(HostChanged(state))
        self._save()
        if state.state == "ready" and self._restoring:
            self._restoring.discard(state.spec.host)
            if not self._restoring:
                self._all_warm()  # all that the last run served is warm, whatever control does

    def _host_gone(self, state: HostState) -> None:
        self.child_ended()
        if state.state == "failed":
            self._control.send(HostChanged(state))
        else:
            self._control.send(HostGone(state.spec.host))
        self._save()

    def tell_drained(self) -> None:
        """For a control process that has just begun: which old tables nobody holds any more."""
        for index in list(self._publisher.tables):
            self._drained(index)

    def _drained(self, index: int) -> None:
        table = self._publisher.tables.get(index)
        if table is not None:
            lowest = self._workers.lowest(index, table.revision)
            self._control.send(Drained(index, lowest))

    def _workers_changed(self, live: int) -> None:
        self.child_ended()
        self._control.send(WorkersChanged(live))

    def _wanted(self, message: Wanted) -> None:
        self._control.send(message)

    # --- evidence

    def _counted(self, message: Counted) -> None:
        self._counts.add(message.windows)

    def _tripped(self, message: Tripped) -> None:
        if self._publisher.trip(message):
            log.warning("a candidate is taken out of its route", reason=message.reason)
            self._save_now()
            if self._counts.is_open:  # else control hears of it with the rest
                self._control.send(message)

    def told(self) -> None:
        """Control has its snapshot: now what the one before did not save."""
        for tripped in self._publisher.tripped.values():
            self._control.send(tripped)
        self._counts.open()

    def control_gone(self) -> None:
        """What is counted from here on is kept for the next control."""
        self._counts.close()
        self.child_ended()

    def _worker_spec(self, slot: int, number: int, tally: str) -> WorkerSpec:
        settings = self.settings
        return WorkerSpec(
            slot=slot,
            incarnation=number,
            workers=len(self._workers.sockets),
            runtime_dir=self._runtime_dir,
            limits=settings.limits(),
            token=settings.secret(),
            access_log=settings.access_log,
            log_level=settings.log_level,
            log_format=settings.log_format,
            readiness=settings.readiness,
            tables=tuple(self._publisher.tables.values()),
            started=self._warm,
            tally=tally,
            name=f"{self._run}.{slot}.{number}",
            records=self._records,
        )

    def _recorder_init(self) -> RecorderInit | None:
        if self._records is None:
            return None
        settings = self.settings
        return RecorderInit(
            self._records, self._runtime_dir, self._run, settings.log_level, settings.log_format
        )

    def snapshot(self) -> Snapshot:
        """Everything, for a control process that has just begun."""
        return Snapshot(
            hosts=self._hosts.views(),
            tables=tuple(self._publisher.tables.values()),
            workers=sum(worker.listening for worker in self._workers.live),
            started=self._warm,
            nursery=self._hosts.nurseries.runtimes,
            runtime_dir=self._runtime_dir,
            settings=self.settings.to_json().encode(),
            started_at=self._started_at,
            supervisor_pid=os.getpid(),
            data_address=self._data_address,
            control_address=self._control_address,
            run=self._run,
        )

    # --- signals

    async def _reload(self) -> None:
        """SIGHUP: new workers with the present code and settings. What is bound stays bound."""
        async with self._reloading:
            before = self.settings
            try:
                self.settings = self._reread()
            except HotswapError as exc:
                log.error("the settings were not reloaded: the old ones stay", reason=str(exc))
                return
            if records_settings(before) != records_settings(self.settings):
                log.warning(
                    "what is recorded was changed: that counts when the server starts again"
                )
            log.info("reloading the workers")
            await self._workers.reload()

    def _terminate(self, drain: float) -> None:
        if self.stopping:
            log.warning("stopping at once: what is in flight is lost")
            self._kill_all()
            self._ended.set()
            return
        self.stopping = True
        self.spawn(self._shut_down(drain))

    async def _shut_down(self, drain: float) -> None:
        """Unready, still accepting; then no more; then what is in flight finishes; then all end."""
        grace = self.settings.grace_seconds
        log.info("stopping", grace_seconds=grace)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        self._workers.unready()
        self._control.send(Unready())
        await asyncio.sleep(min(drain, grace))
        for sock in self._workers.sockets:
            sock.close()  # else who connects from here on would wait for an answer in vain
        self._workers.stop(max(0.1, deadline - loop.time() - 0.5))
        await self._until(lambda: not self._workers.live, deadline)
        if self._workers.live:
            log.warning("the grace time is over: what is in flight is lost")
        self._save_now()  # the last time: what stops from here on was wanted
        self._control.send(Stop())
        self._recorder.stop()  # the workers are gone: what they noted is in the rings
        self._hosts.stop_all()
        self._hosts.nurseries.close()
        await self._until(
            lambda: not (self._hosts.hosts or self._control.alive or self._recorder.alive),
            max(deadline, loop.time() + 1.0),
        )
        self._kill_all()
        self._ended.set()

    async def _until(self, done: Callable[[], bool], deadline: float) -> None:
        """Wait for the end of children, at most until ``deadline`` on the loop's clock."""
        loop = asyncio.get_running_loop()
        while not done() and loop.time() < deadline:
            self._child_ended.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child_ended.wait(), deadline - loop.time())

    def child_ended(self) -> None:
        """Some child is gone: whoever waits in `_until` looks again."""
        self._child_ended.set()

    def _kill_all(self) -> None:
        self._workers.kill()
        self._recorder.kill()
        for host in self._hosts.hosts.values():
            if host.watch is not None:
                host.watch.kill()
        if self._control.watch is not None:
            self._control.watch.kill()


def _url(address: tuple[str, int]) -> str:
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(settings: Settings, reread: Callable[[], Settings] | None = None) -> int:
    """Serve until told to stop; the exit status. Raises `ConfigError` before anything is started.

    ``reread`` gives the settings anew on SIGHUP.
    """
    if sys.platform == "win32":
        raise ConfigError(
            "'serve' needs Linux or macOS; on Windows use hotswap.Engine in your own process"
        )
    logs.configure(settings.log_level, settings.log_format, "supervisor")
    if settings.models is not None and not os.access(settings.models, os.R_OK | os.X_OK):
        exists = settings.models.exists()
        why = "cannot be read" if exists else "does not exist"
        raise ConfigError(f"the models folder {settings.models} {why}")
    platform.become_subreaper()
    platform.raise_file_limit()
    with folders.locked(settings.state_dir), contextlib.ExitStack() as stack:
        sockets, data_address = bind_slots(settings.host, settings.port, settings.workers)
        for sock in sockets:
            stack.enter_context(sock)
        control_socket, control_address = bind_one(settings.control_host, settings.control_port)
        stack.enter_context(control_socket)
        folder = stack.enter_context(folders.runtime_folder())

        async def main() -> int:
            return await Supervisor(
                settings, reread or (lambda: settings), sockets, data_address,
                control_socket, control_address, folder,
            ).run()  # fmt: skip

        return asyncio.run(main())
