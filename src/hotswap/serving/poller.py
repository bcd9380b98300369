"""Waiting for several descriptors: `select.epoll`, or what stands in for it where there is none."""

from __future__ import annotations

import select
import selectors
from typing import Final

# epoll's bits, by their values: the module does not name them where there is no epoll.
READABLE: Final = 0x001
WRITABLE: Final = 0x004
#: An error or a hang-up: reading tells which.
BROKEN: Final = 0x008 | 0x010


class SelectorPoller:
    """The part of `select.epoll` that a host uses, on the platform's own selector."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fd: int, eventmask: int) -> None:
        """Watch a descriptor for `READABLE`, `WRITABLE` or both."""
        self._selector.register(fd, _to_selector(eventmask))

    def modify(self, fd: int, eventmask: int) -> None:
        """Watch it for these instead."""
        self._selector.modify(fd, _to_selector(eventmask))

    def unregister(self, fd: int) -> None:
        """Watch it no more. To be called before it is closed."""
        self._selector.unregister(fd)

    def poll(self, timeout: float = -1) -> list[tuple[int, int]]:
        """(descriptor, events), each descriptor once. ``timeout`` in seconds; -1: for ever."""
        ready: dict[int, int] = {}
        # kqueue tells reading and writing apart: one descriptor may be there twice.
        for key, events in self._selector.select(None if timeout < 0 else timeout):
            ready[key.fd] = ready.get(key.fd, 0) | _from_selector(events)
        return list(ready.items())

    def close(self) -> None:
        """Watch nothing any more."""
        self._selector.close()


def _to_selector(mask: int) -> int:
    read = selectors.EVENT_READ if mask & READABLE else 0
    return read | (selectors.EVENT_WRITE if mask & WRITABLE else 0)


def _from_selector(events: int) -> int:
    read = READABLE if events & selectors.EVENT_READ else 0
    return read | (WRITABLE if events & selectors.EVENT_WRITE else 0)


def poller() -> select.epoll | SelectorPoller:
    """What this platform has."""
    return select.epoll() if hasattr(select, "epoll") else SelectorPoller()
