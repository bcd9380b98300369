"""What the supervisor is to a server, within one program: threads for hosts, a plane for workers.

`EngineHosts` is the other end of control's channel (`hotswap.control.node.Sender`): control says
what should run and which table to flip to, exactly as it does to a supervisor. Versions run on threads;
candidates of rollouts, and the twins that they are compared with, in processes if the engine
isolates them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import structlog

from hotswap.app.engine_load import load_version
from hotswap.core.routing import RouteTable
from hotswap.core.windows import Window
from hotswap.errors import HotswapError, LoadError
from hotswap.ipc.messages import (
    AllWarm,
    Counted,
    HostChanged,
    HostGone,
    HostSpec,
    HostState,
    LoadReport,
    Publish,
    Published,
    StableOnly,
    StartHost,
    StopHost,
    Tripped,
)
from hotswap.ports import Executor
from hotswap.serving.inline import InlinePlane
from hotswap.serving.inline_links import RemoteRunner
from hotswap.serving.inline_runner import InlineRunner

if TYPE_CHECKING:
    from hotswap.app.engine_processes import EngineProcesses

log = structlog.get_logger("hotswap.engine")

_JOIN_SECONDS = 5.0
_ARGUMENTS = {
    "start the server with --trust-code (or HOTSWAP_TRUST_CODE=1)": (
        "make the engine with trust_code=True"
    ),
    "with --allow-unvalidated": "with allow_unvalidated=True",
}


def describe(exc: BaseException) -> str:
    """A model's exception in a sentence: type and message."""
    if isinstance(exc, HotswapError):
        return in_python(str(exc))
    text = str(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def in_python(text: str) -> str:
    """A sentence that names a flag of the command line, with the engine's argument instead.

    >>> in_python("allow unvalidated versions with --allow-unvalidated")
    'allow unvalidated versions with allow_unvalidated=True'
    """
    for flag, argument in _ARGUMENTS.items():
        text = text.replace(flag, argument)
    return text


class EngineHost:
    """One version instance and its thread, which loads it and then runs what does not run inline."""

    def __init__(self, keeper: EngineHosts, spec: HostSpec) -> None:
        self.spec = spec
        self.runner: InlineRunner | None = None
        self.settled = False
        self._keeper = keeper
        self._given_up = threading.Event()
        self.thread = threading.Thread(
            target=self._live, name=f"hotswap {spec.model}/{spec.version}", daemon=True
        )

    def give_up(self) -> None:
        """What is being loaded is not wanted any more: close it once it is there."""
        self._given_up.set()
        if self.runner is not None:
            self.runner.close()

    def _live(self) -> None:
        spec, keeper = self.spec, self._keeper
        try:
            _check_settings(spec)
            executor, report = load_version(
                spec.artifact, spec.settings, spec.public, allow_unvalidated=spec.allow_unvalidated
            )
        except (Exception, SystemExit) as exc:  # loading may raise anything
            error, kind = describe(exc), type(exc).__name__
            log.info("a version could not be loaded", model=spec.model, version=spec.version,
                     exc_info=exc)  # fmt: skip
            keeper.tell(lambda: keeper.failed(self, error, kind))
        else:
            runner = self._runner(executor, report)
            keeper.tell(lambda: keeper.loaded(self, runner, report))
            if self._given_up.is_set():
                runner.close()
            runner.work()
        keeper.tell(lambda: keeper.ended(self))

    def _runner(self, executor: Executor, report: LoadReport) -> InlineRunner:
        spec = self.spec
        return InlineRunner(
            executor,
            name=f"version {spec.version!r} of model {spec.model!r}",
            steady_seconds=report.steady_seconds,
            batch_rows=spec.settings.batch_rows,
            queue_rows=self._keeper.queue_rows,
            hang_seconds=spec.settings.hang_seconds,
            finite=spec.settings.finite,
            describe=describe,
        )


def _check_settings(spec: HostSpec) -> None:
    if spec.settings.memory_mb is not None:
        raise LoadError(
            "its memory_mb cannot be kept, as the engine runs models within this process: remove "
            "it from version.yaml, or run 'hotswap serve'"
        )


class EngineHosts:
    """Runs hosts and carries out flips. Used on control's loop; threads come back through `tell`.

    ``heard`` is `hotswap.control.node.Node.heard`; ``is_candidate(model, version)`` whether a
    running rollout is about that version. ``runtime_dir``: where candidates' processes listen,
    None if candidates run on threads too.
    """

    def __init__(
        self,
        plane: InlinePlane,
        loop: asyncio.AbstractEventLoop,
        queue_rows: int,
        runtime_dir: str | None = None,
    ) -> None:
        self.queue_rows = queue_rows
        self.heard: Callable[[object], None] = lambda message: None
        self.is_candidate: Callable[[str, str], bool] = lambda model, version: False
        self._plane = plane
        self._loop = loop
        self._runtime_dir = runtime_dir
        self._hosts: dict[str, EngineHost] = {}
        self._apart: set[str] = set()
        self._processes: EngineProcesses | None = None
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._reports = 0

    def tell(self, what: Callable[[], None]) -> None:
        """Have control's loop do this; nothing if it has ended."""
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:
            return

    def send(self, message: object) -> bool:
        """Control's word."""
        if isinstance(message, StartHost):
            self._start(message.spec)
        elif isinstance(message, StopHost):
            self._stop(message.host)
        elif isinstance(message, Publish):
            self._publish(message.table)
        elif isinstance(message, StableOnly):
            self._plane.stable_only(message.index)
        elif isinstance(message, AllWarm):
            self._plane.started = True
        # What is counted is kept nowhere else: that control has saved it changes nothing here.
        return True

    # --- what is counted, told by the thread that divides requests

    def counted(self, windows: list[Window]) -> None:
        """Windows are complete."""
        self.tell(lambda: self._count(windows))

    def _count(self, windows: list[Window]) -> None:
        self._reports += 1
        self.heard(Counted(windows, self._reports))

    def tripped(self, index: int, test: str, reason: str, failures: int) -> None:
        """A breaker took a candidate out: no request may be assigned to it, from now on."""
        if self._plane.trip(index, test):
            self.tell(lambda: self.heard(Tripped(index, test, reason, failures)))

    # --- hosts

    def _start(self, spec: HostSpec) -> None:
        isolated = spec.twin or self.is_candidate(spec.model, spec.version)
        if self._runtime_dir is not None and isolated:
            self._start_apart(spec, self._runtime_dir)
            return
        host = EngineHost(self, spec)
        self._hosts[spec.host] = host
        self._deadlines[spec.host] = self._loop.call_later(
            spec.load_seconds, self._load_deadline, host
        )
        host.thread.start()

    def _start_apart(self, spec: HostSpec, runtime_dir: str) -> None:
        try:
            _check_settings(spec)
            processes = self._processes or self._open_processes(runtime_dir)
        except (HotswapError, OSError) as exc:
            failed = HostState(spec, "failed", error=str(exc), error_type=type(exc).__name__)
            self._loop.call_soon(self.heard, HostChanged(failed))
            return
        self._apart.add(spec.host)
        processes.start(spec)

    def _open_processes(self, runtime_dir: str) -> EngineProcesses:
        from hotswap.app.engine_processes import EngineProcesses

        split = self._plane.split
        assert split is not None
        self._processes = EngineProcesses(
            split, runtime_dir, self._apart_ready, self._apart_changed, self._apart_gone
        )
        return self._processes

    def _apart_ready(self, state: HostState) -> None:
        split, report = self._plane.split, state.report
        assert split is not None
        assert report is not None
        host = state.spec.host
        runner = RemoteRunner(split, host, state.spec.public or report.signature)
        self._plane.remote = {**self._plane.remote, host: runner}
        self._apart_changed(state)

    def _apart_changed(self, state: HostState) -> None:
        self.heard(HostChanged(state))

    def _apart_gone(self, state: HostState) -> None:
        host = state.spec.host
        self._apart.discard(host)
        self._plane.remote = {
            name: runner for name, runner in self._plane.remote.items() if name != host
        }
        failed = state.state == "failed"
        error = in_python(state.error)
        state = msgspec.structs.replace(state, error=error)
        self.heard(HostChanged(state) if failed else HostGone(host))

    def memory_of(self, pid: int) -> int:
        """Bytes that a candidate's process holds."""
        return self._processes.memory_of(pid) if self._processes is not None else 0

    def _load_deadline(self, host: EngineHost) -> None:
        # A thread cannot be stopped: it is left to itself, and what it loads is closed.
        self.failed(host, f"loading took longer than {host.spec.load_seconds:g} s", "TimeoutError")
        host.give_up()

    def loaded(self, host: EngineHost, runner: InlineRunner, report: LoadReport) -> None:
        """A thread has loaded its version."""
        if self._settle(host):
            runner.close()
            return
        host.runner = runner
        self._plane.runners = {**self._plane.runners, host.spec.host: runner}
        self.heard(HostChanged(HostState(host.spec, "ready", incarnation=1, report=report)))

    def failed(self, host: EngineHost, error: str, kind: str) -> None:
        """A thread could not, or not in time."""
        if not self._settle(host):
            self.heard(HostChanged(HostState(host.spec, "failed", error=error, error_type=kind)))

    def _settle(self, host: EngineHost) -> bool:
        """Whether it was settled before that this host is, or is not, loaded."""
        before, host.settled = host.settled, True
        timer = self._deadlines.pop(host.spec.host, None)
        if timer is not None:
            timer.cancel()
        return before

    def ended(self, host: EngineHost) -> None:
        """A thread is at its end."""
        self._hosts.pop(host.spec.host, None)
        self._plane.runners = {
            name: runner for name, runner in self._plane.runners.items() if name != host.spec.host
        }
        if self._plane.split is not None:
            self._plane.split.removed(host.spec.host)
        self.heard(HostGone(host.spec.host))

    def _stop(self, name: str) -> None:
        if name in self._apart and self._processes is not None:
            self._processes.stop(name)
            return
        host = self._hosts.get(name)
        if host is None:
            return
        loading = not self._settle(host)
        host.give_up()
        if loading:
            self.heard(HostGone(name))

    def _publish(self, table: RouteTable) -> None:
        flip_ms, error = 0.0, ""
        self._check_apart(table)
        try:
            flip_ms = self._plane.publish(table)
        except (HotswapError, TimeoutError) as exc:
            error = str(exc) or "the thread that divides requests does not answer"
        self.heard(
            Published(
                index=table.index, revision=table.revision, flip_ms=flip_ms, publish_ms=flip_ms,
                acks=1, workers=1, error=error,
            )
        )  # fmt: skip

    def _check_apart(self, table: RouteTable) -> None:
        """A version that a pinned request had loaded is not loaded anew when its turn comes."""
        split = table.split
        if split is None or self._runtime_dir is None or split.candidate == table.stable:
            return
        entry = table.version(split.candidate)
        hosts = {ref.host for ref in entry.hosts} if entry is not None else set()
        if hosts - self._apart:
            log.warning(
                "a rollout's candidate had been loaded already: it runs within this process",
                model=table.model, version=split.candidate,
            )  # fmt: skip

    async def close_processes(self) -> None:
        """End every process, and wait until they are gone."""
        if self._processes is not None:
            await self._processes.close()

    def close(self) -> list[threading.Thread]:
        """Tell every host to end; their threads."""
        hosts = list(self._hosts.values())
        for host in hosts:
            self._settle(host)
            host.give_up()
        return [host.thread for host in hosts]


def join(threads: list[threading.Thread]) -> None:
    """Wait for them a few seconds; one that hangs in a model is named and left behind."""
    until = time.monotonic() + _JOIN_SECONDS
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            log.warning("a thread hangs in a model's code and ends with the process only",
                        thread=thread.name)  # fmt: skip
