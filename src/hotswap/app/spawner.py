"""Hosts without a nursery: each is a new interpreter that imports what it needs itself.

For where a process that has imported numeric libraries cannot be forked (macOS). It takes the
nurseries' place in `hotswap.app.hosts`, method for method.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from hotswap.app import platform
from hotswap.app.processes import start
from hotswap.ipc.messages import Fork, Forked
from hotswap.plugins import PRELOAD_ENVIRONMENT


class Spawner:
    """Starts each host by exec, with its channel, the health words and, if need be, a lifeline.

    ``environment`` is given to the hosts beside what every child gets.
    """

    def __init__(
        self,
        health_fd: int,
        runtime_dir: str,
        on_forked: Callable[[Forked], None],
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._health_fd = health_fd
        self._runtime_dir = runtime_dir
        self._on_forked = on_forked
        self._environment = {**PRELOAD_ENVIRONMENT, **environment}
        self._runtimes: list[str] = []
        # Nobody writes to it. Its one writing end is here, so that it ends with this process.
        self._lifeline = None if platform.LINUX else os.pipe()

    @property
    def pids(self) -> list[int]:
        """There is no process but the hosts."""
        return []

    @property
    def runtimes(self) -> tuple[str, ...]:
        """What was wanted; each host imports its own."""
        return tuple(self._runtimes)

    def open(self, runtimes: Sequence[str]) -> None:
        """Nothing to start."""
        self.want(runtimes)

    def keep_spare(self) -> None:
        """There is nothing that could die."""

    def want(self, runtimes: Sequence[str]) -> None:
        """Nothing can be imported for a process that does not exist yet."""
        self._runtimes += [name for name in runtimes if name not in self._runtimes]

    def fork(self, message: Fork, runtime: str, theirs: socket.socket) -> None:
        """Start a host; ``theirs``, its end of its channel, is closed here."""
        self.want([runtime])
        arguments = [
            f"--channel={theirs.fileno()}", f"--slot={message.slot}",
            f"--health={self._health_fd}", f"--runtime-dir={self._runtime_dir}",
            f"--runtime={runtime}",
        ]  # fmt: skip
        descriptors = [theirs.fileno(), self._health_fd]
        if self._lifeline is not None:
            descriptors.append(self._lifeline[0])
            arguments.append(f"--lifeline={self._lifeline[0]}")
        pid, error = 0, ""
        with theirs:
            try:
                pid = start(
                    "hotswap.app.host_process", arguments, descriptors, self._environment
                ).pid
            except OSError as exc:
                error = f"a process could not be started: {exc.strerror or exc}"
        self._on_forked(Forked(message.host, message.incarnation, pid, error))

    def close(self) -> None:
        """Hosts end by their channels; a lifeline ends with this process."""
