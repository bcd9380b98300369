"""What the connections of one server share."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from hotswap.core.spec import Limits

if TYPE_CHECKING:
    from hotswap.server.app import DataApp
    from hotswap.server.protocol import Connection


class Shared:
    """What all connections of one server share.

    ``inflight``: requests begun and not answered. ``draining``: every answer closes its
    connection. ``date``: the Date header's line, renewed by the sweeper.
    """

    __slots__ = ("app", "connections", "date", "draining", "hosts", "inflight", "limits")

    def __init__(self, app: DataApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self.connections: set[Connection] = set()
        self.hosts: set[bytes] = set()
        self.inflight = 0
        self.draining = False
        self.date = b""
        self.renew_date()

    def renew_date(self) -> None:
        """Set ``date`` to now."""
        self.date = b"date: " + formatdate(usegmt=True).encode("ascii") + b"\r\n"

    def done(self) -> None:
        """One request less is in flight."""
        self.inflight -= 1

    def busy(self) -> bool:
        """Whether a request is being received or answered."""
        return self.inflight > 0 or any(each.receiving for each in self.connections)

    def sweep(self) -> None:
        """Close every connection whose deadline has passed."""
        now = time.monotonic()
        late = [connection for connection in self.connections if connection.deadline < now]
        for connection in late:
            connection.expire()
