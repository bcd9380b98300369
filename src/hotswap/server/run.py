"""Runs a `DataApp` on sockets that are already bound, inside a running event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from hotswap.server.app import DataApp
from hotswap.server.protocol import Connection
from hotswap.server.shared import Shared

_BACKLOG: Final = 2048
_SWEEP: Final = 1.0
_LOOK: Final = 0.01


class DataServer:
    """The HTTP server of one data-plane process.

    `start`, then at the end `begin_drain` (answers still come, each closing its connection),
    `stop_accepting`, `wait_idle` and `close`, in this order.
    """

    def __init__(self, app: DataApp) -> None:
        self._app = app
        self._shared = Shared(app, app.limits)
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._every = min(_SWEEP, app.limits.receive_timeout / 4, app.limits.keepalive_timeout / 4)

    @property
    def inflight(self) -> int:
        """Requests that are whole and not yet answered."""
        return self._shared.inflight

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._shared.connections)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on ``sockets`` (bound; they are closed by `stop_accepting`)."""
        loop = asyncio.get_running_loop()
        for sock in sockets:
            server = await loop.create_server(
                lambda: Connection(self._shared, loop), sock=sock, backlog=_BACKLOG
            )
            self._servers.append(server)
        self._sweep(loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._shared.renew_date()
        self._shared.sweep()
        self._sweeper = loop.call_later(self._every, self._sweep, loop)

    def begin_drain(self) -> None:
        """Not ready from now on, and every answer asks its client to connect anew."""
        self._app.draining = True
        self._shared.draining = True

    def stop_accepting(self) -> None:
        """Close the listening sockets; connections stay."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a connection that somebody else accepted."""
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: Connection(self._shared, loop), sock)

    async def wait_idle(self, timeout: float) -> bool:
        """Wait until no request is arriving or being answered; whether it came so.

        ``timeout`` seconds at most.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        # Looked at now and then: only here does anybody want to know, and requests are many.
        while self._shared.busy():
            if loop.time() >= end:
                return False
            await asyncio.sleep(min(_LOOK, timeout))
        return True

    async def close(self) -> None:
        """Close everything that is left; what is in flight is cancelled."""
        self.stop_accepting()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._shared.connections):
            connection.shutdown()
        # One turn of the loop lets the transports tell their protocols.
        await asyncio.sleep(0)
