"""What the supervisor last ran, on disk: so that a restart can serve before control has spoken."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
import structlog

from hotswap.core.routing import RouteTable
from hotswap.ipc.messages import HostSpec, Tripped

log = structlog.get_logger("hotswap.supervisor")

_VERSION = 1


class Last(msgspec.Struct, frozen=True):
    """Hosts that were wanted and tables that were committed.

    ``lowered``: by a table's index, the test that control took out of the route; ``tripped``:
    what breakers took out. Neither may come back with the table.
    """

    version: int
    hosts: tuple[HostSpec, ...]
    tables: tuple[RouteTable, ...]
    lowered: dict[int, str] = {}
    tripped: tuple[Tripped, ...] = ()


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

    def write(
        self,
        hosts: Iterable[HostSpec],
        tables: Iterable[RouteTable],
        lowered: Mapping[int, str] = MappingProxyType({}),
        tripped: Iterable[Tripped] = (),
    ) -> None:
        """Whole or not at all."""
        last = Last(_VERSION, tuple(hosts), tuple(tables), dict(lowered), tuple(tripped))
        content = msgspec.msgpack.encode(last)
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
