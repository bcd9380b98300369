"""What the supervisor last ran, on disk: so that a restart can serve before control has spoken."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import structlog

from hotswap.core.routing import RouteTable
from hotswap.ipc.messages import HostSpec

log = structlog.get_logger("hotswap.supervisor")

_VERSION = 1


class Last(msgspec.Struct, frozen=True):
    """Hosts that were wanted and tables that were committed."""

    version: int
    hosts: tuple[HostSpec, ...]
    tables: tuple[RouteTable, ...]


class LastRun:
    """The file. A write that fails is logged once and forgotten: serving goes on without it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = b""
        self._warned = False

    def read(self) -> Last | None:
        """None if there is none, or none that this code understands."""
        try:
            last = msgspec.msgpack.decode(self._path.read_bytes(), type=Last)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as exc:
            log.warning(
                "the last run's state cannot be used; control restores from its store",
                reason=str(exc),
            )
            return None
        return last if last.version == _VERSION else None

    def write(self, hosts: list[HostSpec], tables: list[RouteTable]) -> None:
        """Whole or not at all."""
        content = msgspec.msgpack.encode(Last(_VERSION, tuple(hosts), tuple(tables)))
        if content == self._written:
            return
        temporary = self._path.with_name(f".{self._path.name}")
        try:
            # Not synced: the store is what must survive a power cut, and control restores from it.
            temporary.write_bytes(content)
            os.replace(temporary, self._path)
        except OSError as exc:
            if not self._warned:
                log.warning("the supervisor's state cannot be saved", reason=exc.strerror)
            self._warned = True
            return
        self._warned = False
        self._written = content
