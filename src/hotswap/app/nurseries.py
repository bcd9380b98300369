"""The supervisor's side of the nursery: one that forks, and a spare that can take its place."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence

import structlog

from hotswap.app.processes import Backoff, Watch, describe_exit, start
from hotswap.ipc import messages
from hotswap.ipc.messages import Fork, Forked, Preload, Preloaded
from hotswap.plugins import PRELOAD_ENVIRONMENT

log = structlog.get_logger("hotswap.supervisor")


class Nursery:
    """One nursery process."""

    def __init__(
        self,
        runtimes: Sequence[str],
        health_fd: int,
        runtime_dir: str,
        on_forked: Callable[[Forked], None],
        on_ready: Callable[[Nursery], None],
        on_exit: Callable[[Nursery, int], None],
    ) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = [
            f"--socket={theirs.fileno()}", f"--health={health_fd}",
            f"--runtime-dir={runtime_dir}", f"--runtimes={','.join(runtimes)}",
        ]  # fmt: skip
        descriptors = [theirs.fileno(), health_fd]
        process = start("hotswap.app.nursery", arguments, descriptors, PRELOAD_ENVIRONMENT)
        theirs.close()
        ours.setblocking(False)
        self.asked = set(runtimes)
        self.waiting = 1  # imports that were asked for and are not done
        self.forked = False
        self._on_ready = on_ready
        self._sock = ours
        self._on_forked = on_forked
        self.watch = Watch(process.pid, lambda status: on_exit(self, status))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours.fileno(), self._read)

    def fork(self, message: Fork, fd: int) -> None:
        """Ask for a host; raises OSError if this nursery is gone."""
        self.forked = True
        self._sock.setblocking(True)
        try:
            socket.send_fds(self._sock, [messages.encode(message)], [fd])
        finally:
            self._sock.setblocking(False)

    def preload(self, runtimes: Sequence[str]) -> None:
        """Have it import more runtimes, before what is forked after this."""
        new = tuple(runtime for runtime in runtimes if runtime not in self.asked)
        if new:
            self.asked.update(new)
            self.waiting += 1
            with contextlib.suppress(OSError):
                self._sock.send(messages.encode(Preload(new)))

    def _read(self) -> None:
        try:
            data = self._sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._sock.fileno())
            return
        message = messages.decode(data)
        if isinstance(message, Forked):
            self._on_forked(message)
        elif isinstance(message, Preloaded):
            self.waiting -= 1
            for problem in message.problems:
                log.warning("a runtime could not be preloaded", problem=problem)
            if not self.waiting:
                self._on_ready(self)

    def close(self) -> None:
        """End of file: it exits."""
        with contextlib.suppress(OSError, ValueError):
            self._loop.remove_reader(self._sock.fileno())
        self._sock.close()


class Nurseries:
    """The nursery in use and its spare. Forks that were asked of one that died are asked again."""

    def __init__(
        self, health_fd: int, runtime_dir: str, on_forked: Callable[[Forked], None]
    ) -> None:
        self._health_fd = health_fd
        self._runtime_dir = runtime_dir
        self._on_forked = on_forked
        self._backoff = Backoff()
        self._runtimes: list[str] = []
        self._asked: dict[str, tuple[Fork, str, socket.socket]] = {}
        self._spare: Nursery | None = None
        self._stopping = False
        self._current: Nursery | None = None

    @property
    def pids(self) -> list[int]:
        """Of the one in use, then of the spare."""
        return [n.watch.pid for n in (self._current, self._spare) if n is not None]

    @property
    def runtimes(self) -> tuple[str, ...]:
        return tuple(self._runtimes)

    def open(self, runtimes: Sequence[str]) -> None:
        """Start the first one, importing these runtimes."""
        self._runtimes = list(runtimes)
        self._current = self._new()

    def keep_spare(self) -> None:
        """Start the spare (once serving has begun: it competes for processors)."""
        if self._spare is None and not self._stopping:
            self._spare = self._new()

    def want(self, runtimes: Sequence[str]) -> None:
        """Have these imported before a host needs them.

        A nursery that is importing forks nothing. So once one is in use it is the spare that
        imports, and then takes its place.
        """
        new = [runtime for runtime in runtimes if runtime not in self._runtimes]
        if not new:
            return
        self._runtimes.extend(new)
        if self._current is not None and not self._current.forked:
            self._current.preload(new)
        elif self._spare is None:
            self.keep_spare()
        else:
            self._spare.preload(new)

    def _ready(self, nursery: Nursery) -> None:
        current = self._current
        if nursery is not self._spare or current is None or nursery.asked <= current.asked:
            return
        self._current, self._spare = nursery, current
        current.preload(self._runtimes)

    def fork(self, message: Fork, runtime: str, theirs: socket.socket) -> None:
        """Fork a host that needs this runtime; ``theirs`` is the host's end of its channel."""
        if runtime not in self._runtimes:
            self._runtimes.append(runtime)
        self._asked[message.host] = (message, runtime, theirs)
        self._ask(message, runtime, theirs)

    def _ask(self, message: Fork, runtime: str, theirs: socket.socket) -> None:
        nursery = self._current
        spare = self._spare
        if nursery is None:
            return  # its successor is asked
        if runtime not in nursery.asked and spare is not None and runtime in spare.asked:
            nursery = spare
        nursery.preload([runtime])
        with contextlib.suppress(OSError):  # it died: `_exited` asks its successor
            nursery.fork(message, theirs.fileno())

    def _new(self) -> Nursery:
        return Nursery(
            self._runtimes,
            self._health_fd,
            self._runtime_dir,
            self._forked,
            self._ready,
            self._exited,
        )

    def _forked(self, message: Forked) -> None:
        asked = self._asked.pop(message.host, None)
        if asked is not None:
            asked[2].close()
            self._on_forked(message)

    def _exited(self, nursery: Nursery, status: int) -> None:
        nursery.close()
        if self._stopping:
            return
        log.warning("a nursery ended", pid=nursery.watch.pid, how=describe_exit(status))
        if nursery is self._spare:
            self._spare = None
            self._again()
            asyncio.get_running_loop().call_later(1.0, self.keep_spare)
            return
        spare, self._spare = self._spare, None
        if spare is not None and spare.watch.alive:
            self._current = spare
            self._again()
            asyncio.get_running_loop().call_later(1.0, self.keep_spare)
            return
        self._current = None
        delay = self._backoff.delay(asyncio.get_running_loop().time() - nursery.watch.started)
        asyncio.get_running_loop().call_later(delay, self._restart)

    def _restart(self) -> None:
        if not self._stopping and self._current is None:
            self._current = self._new()
            self._again()

    def _again(self) -> None:
        for message, runtime, theirs in list(self._asked.values()):
            self._ask(message, runtime, theirs)

    def close(self) -> None:
        """End both."""
        self._stopping = True
        for nursery in (self._current, self._spare):
            if nursery is not None:
                nursery.close()
        for _, _, theirs in self._asked.values():
            theirs.close()
