"""Servers as processes: started on a free port, waited for, and stopped with all they started."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.paths import LOGS


class ServerFailed(Exception):
    """A server did not come up, or answered wrongly; the message says which and why."""


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def children(pid: int) -> list[int]:
    """All living descendants of ``pid``, parents first."""
    found: list[int] = []
    todo = [pid]
    while todo:
        parent = todo.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                kids = [int(text) for text in task.read_text().split()]
                found += kids
                todo += kids
    return found


def private_bytes(pid: int) -> int:
    """Memory of ``pid`` that it shares with no other process, in bytes."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) * 1024
    return total


def tree_bytes(pid: int) -> int:
    """Proportional memory (PSS) of ``pid`` and all its descendants, in bytes."""
    total = 0
    for each in [pid, *children(pid)]:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def processor_seconds(pid: int) -> dict[str, float]:
    """Processor time of ``pid`` and its descendants so far, in seconds, by what they are.

    A server's own processes are named by their module, such as ``worker``; a host, which is forked,
    is called as its nursery.
    """
    found: dict[str, float] = {}
    for each in [pid, *children(pid)]:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{each}/cmdline").read_bytes().decode().split("\0")
            modules = [word for word in words if word.startswith("hotswap.app.")]
            name = modules[0].rpartition(".")[2] if modules else "supervisor"
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(") ")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            found[name] = found.get(name, 0.0) + ticks / os.sysconf("SC_CLK_TCK")
    return found


def post(port: int, path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """The body of the answer to one POST; raises ServerFailed unless it is a 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(
            "POST", path, body, {"Content-Type": "application/json"} | (headers or {})
        )
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise ServerFailed(f"{path} answered {answer.status}: {text[:300]!r}")
    return text


def stop(process: subprocess.Popen[bytes], grace: float = 10.0) -> None:
    """End ``process`` and everything it started, kindly first."""
    family = children(process.pid)
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    for pid in [process.pid, *family]:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def running(
    name: str,
    command: list[str],
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    ready: Callable[[], object],
    patience: float = 90.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` until the block ends; enters once ``ready()`` stops raising.

    Its output goes to a log in the cache; the last lines are in the error if it does not start.
    """
    log = LOGS / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | (env or {}),
            cwd=cwd,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                ready()
                break
            except (OSError, http.client.HTTPException, ServerFailed) as problem:
                if process.poll() is not None or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace").strip().splitlines()[-8:]
                    raise ServerFailed(
                        f"{name} did not start: {problem}\n" + "\n".join(tail)
                    ) from None
                time.sleep(0.05)
        yield process
    finally:
        stop(process)
