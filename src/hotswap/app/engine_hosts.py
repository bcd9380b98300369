"""What the supervisor is to a server, within one process: threads for hosts, a plane for workers.

`EngineHosts` is the other end of control's channel (`hotswap.control.node.Sender`): control says
what should run and which table to flip to, exactly as it does to a supervisor.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import structlog

from hotswap.app.engine_load import load_version
from hotswap.core.routing import RouteTable
from hotswap.errors import HotswapError, LoadError
from hotswap.ipc.messages import (
    AllWarm,
    HostChanged,
    HostGone,
    HostSpec,
    HostState,
    LoadReport,
    Publish,
    Published,
    StartHost,
    StopHost,
)
from hotswap.ports import Executor
from hotswap.serving.inline import InlinePlane
from hotswap.serving.inline_runner import InlineRunner

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

    ``heard`` is `hotswap.control.node.Node.heard`.
    """

    def __init__(
        self, plane: InlinePlane, loop: asyncio.AbstractEventLoop, queue_rows: int
    ) -> None:
        self.queue_rows = queue_rows
        self.heard: Callable[[object], None] = lambda message: None
        self._plane = plane
        self._loop = loop
        self._hosts: dict[str, EngineHost] = {}
        self._deadlines: dict[str, asyncio.TimerHandle] = {}

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
        elif isinstance(message, AllWarm):
            self._plane.started = True
        return True

    def _start(self, spec: HostSpec) -> None:
        host = EngineHost(self, spec)
        self._hosts[spec.host] = host
        self._deadlines[spec.host] = self._loop.call_later(
            spec.load_seconds, self._load_deadline, host
        )
        host.thread.start()

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
        self.heard(HostGone(host.spec.host))

    def _stop(self, name: str) -> None:
        host = self._hosts.get(name)
        if host is None:
            return
        loading = not self._settle(host)
        host.give_up()
        if loading:
            self.heard(HostGone(name))

    def _publish(self, table: RouteTable) -> None:
        flip_ms = self._plane.publish(table)
        self.heard(
            Published(
                index=table.index, revision=table.revision, flip_ms=flip_ms, publish_ms=flip_ms,
                acks=1, workers=1,
            )
        )  # fmt: skip

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
