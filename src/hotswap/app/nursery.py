"""The nursery: imports the runtimes, runs nothing, forks hosts.

A host forked from here shares the imported libraries' pages and is ready in milliseconds. The
nursery has one thread and never calls a model, so that a fork copies no lock that is held and
no thread that is gone. Hosts are forked twice: the process in between exits, and the host
becomes the supervisor's own child.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence

from hotswap.app import host, platform
from hotswap.ipc import messages
from hotswap.ipc.messages import Fork, Forked, Preload, Preloaded
from hotswap.ipc.words import HEALTH_WORDS, Health, Words

_PACKET = 65_536


def preload(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Import what these runtimes need: (imported, problems)."""
    from hotswap.plugins import runtimes

    known = runtimes()
    done, problems = [], []
    for name in names:
        try:
            known[name].preload()
        except Exception as exc:
            problems.append(f"{name}: {exc}")
        else:
            done.append(name)
    # Everything a host needs that is not a runtime's.
    import hotswap.runtimes.samples
    import hotswap.serving.hostloop
    import hotswap.sources.manifest  # noqa: F401

    return tuple(done), tuple(problems)


class Nursery:
    """Answers `Fork` messages until the supervisor is gone."""

    def __init__(self, sock: socket.socket, health: Health, runtime_dir: str) -> None:
        self._sock = sock
        self._health = health
        self._runtime_dir = runtime_dir
        self._loaded: set[str] = set()

    def run(self, names: Sequence[str]) -> int:
        """Until end of file."""
        self._preload(names)
        while True:
            data, fds, _, _ = socket.recv_fds(self._sock, _PACKET, 1)
            if not data:
                return 0
            message = messages.decode(data)
            if isinstance(message, Preload):
                self._preload(message.runtimes)
            elif isinstance(message, Fork):
                self._fork(message, fds[0])

    def _preload(self, names: Sequence[str]) -> None:
        wanted = [name for name in names if name not in self._loaded]
        with platform.background():
            done, problems = preload(wanted)
        self._loaded.update(wanted)
        # What lives now lives for ever: keep the collector from writing to its pages in hosts.
        gc.collect()
        gc.freeze()
        self._sock.send(messages.encode(Preloaded(done, problems)))

    def _fork(self, message: Fork, fd: int) -> None:
        read, write = os.pipe()
        try:
            middle = os.fork()
        except OSError as exc:
            os.close(fd)
            self._sock.send(
                messages.encode(Forked(message.host, message.incarnation, 0, f"fork failed: {exc}"))
            )
            return
        if middle == 0:
            self._between(message, fd, write)
        os.close(write)
        os.close(fd)
        raw = os.read(read, 32)
        os.close(read)
        os.waitpid(middle, 0)
        error = "" if raw else "fork failed: not enough memory or processes"
        pid = int(raw or b"0")
        self._sock.send(messages.encode(Forked(message.host, message.incarnation, pid, error)))

    def _between(self, message: Fork, fd: int, write: int) -> None:
        """The process in between, and in it the host. Never returns."""
        status = 1
        try:
            between = os.getpid()
            child = os.fork()
            if child:
                os.write(write, b"%d" % child)
                os._exit(0)
            os.close(write)
            self._sock.close()
            while os.getppid() == between:
                time.sleep(0.0002)  # until adopted: a death signal belongs to the present parent
            status = host.run(fd, message.slot, self._health, self._runtime_dir)
        finally:
            sys.stderr.flush()
            os._exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m hotswap.app.nursery``: started by the supervisor only."""
    parser = argparse.ArgumentParser(prog="hotswap-nursery")
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--health", type=int, required=True)
    parser.add_argument("--runtime-dir", required=True)
    parser.add_argument("--runtimes", default="")
    args = parser.parse_args(argv)
    platform.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=args.socket)
    health = Health(Words(args.health, HEALTH_WORDS))
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        return Nursery(sock, health, args.runtime_dir).run(
            [name for name in args.runtimes.split(",") if name]
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
