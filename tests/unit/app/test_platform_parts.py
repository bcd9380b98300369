"""Shared words and waiting for descriptors, as on Linux and as elsewhere."""

from __future__ import annotations

import os
import select
import selectors
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hotswap.ipc.words import Words
from hotswap.serving import poller
from hotswap.serving.poller import BROKEN, READABLE, WRITABLE, SelectorPoller


@pytest.fixture(params=["memfd", "file"])
def _memory(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With anonymous memory files and without."""
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.usefixtures("_memory")
def test_words_are_shared_with_children(tmp_path: Path) -> None:
    """A child that inherits the descriptor reads and writes the same words; no file has a name."""
    words = Words.create("test", 1024)
    assert list(tmp_path.iterdir()) == []
    assert set(words.view) == {0}
    assert not os.get_inheritable(words.fd)
    words[3] = (1 << 64) - 1
    code = (
        "import sys; from hotswap.ipc.words import Words\n"
        "words = Words(int(sys.argv[1]), 1024); assert words[3] == 2**64 - 1; words[1023] = 7"
    )
    subprocess.run([sys.executable, "-c", code, str(words.fd)], pass_fds=[words.fd], check=True)
    assert words[1023] == 7
    os.close(words.fd)
    assert words[1023] == 7, "the mapping outlives its descriptor"


@pytest.fixture(params=["epoll", "selector"])
def polled(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> select.epoll | SelectorPoller:
    """What a host waits with: Linux's own, and what stands in for it."""
    if request.param == "selector":
        monkeypatch.delattr(select, "epoll")
    found = poller.poller()
    assert isinstance(found, SelectorPoller) == (request.param == "selector")
    return found


def test_polls_as_epoll_does(polled: select.epoll | SelectorPoller) -> None:
    """Reading, writing and hanging up are told by the same bits; what is unregistered is not."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = ours.fileno()
        polled.register(fd, READABLE)
        assert polled.poll(0) == []
        theirs.send(b"x")
        assert polled.poll(-1) == [(fd, READABLE)]
        polled.modify(fd, READABLE | WRITABLE)
        assert polled.poll(1) == [(fd, READABLE | WRITABLE)]
        ours.recv(1)
        assert polled.poll(0) == [(fd, WRITABLE)]
        polled.modify(fd, READABLE)
        theirs.close()
        ((which, events),) = polled.poll(-1)
        assert which == fd
        assert events & (READABLE | BROKEN)
        polled.unregister(fd)
        assert polled.poll(0) == []


def test_one_descriptor_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A selector that tells reading and writing apart (kqueue) still gives one entry."""

    class Apart(selectors.SelectSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            return [
                (key, bit)
                for key, events in super().select(timeout)
                for bit in (selectors.EVENT_READ, selectors.EVENT_WRITE)
                if events & bit
            ]

    monkeypatch.setattr(selectors, "DefaultSelector", Apart)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        polled = SelectorPoller()
        polled.register(ours.fileno(), READABLE | WRITABLE)
        theirs.send(b"x")
        assert polled.poll(-1) == [(ours.fileno(), READABLE | WRITABLE)]


def test_bits_are_the_system_s() -> None:
    """The bits that are named here are epoll's."""
    assert (READABLE, WRITABLE) == (select.EPOLLIN, select.EPOLLOUT)
    assert BROKEN == select.EPOLLERR | select.EPOLLHUP


def test_a_closed_poller_is_closed(polled: select.epoll | SelectorPoller) -> None:
    """After `close` it waits for nothing more, and what it watched is still open."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        polled.register(ours.fileno(), READABLE)
        polled.close()
        with pytest.raises((ValueError, KeyError, RuntimeError)):
            polled.register(theirs.fileno(), READABLE)
        theirs.send(b"x")
        assert ours.recv(1) == b"x"
