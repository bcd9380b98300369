"""Child processes: started clean, watched to their end, restarted without haste."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.app.processes import Backoff, Watch, describe_exit, pair, reap_strangers, start


def _child(code: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
    process.returncode = 0  # the watch collects it
    return process


class Ended:
    """What a watch has told."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.event = asyncio.Event()

    def __call__(self, status: int) -> None:
        self.statuses.append(status)
        self.event.set()

    async def wait(self) -> int:
        async with asyncio.timeout(20):
            await self.event.wait()
        return self.statuses[0]


async def test_the_end_of_a_child_is_told_once_with_its_status() -> None:
    """And the child is collected: no zombie stays."""
    ended = Ended()
    watch = Watch(_child("raise SystemExit(7)").pid, ended)
    assert await ended.wait() == 7
    assert not watch.alive
    with pytest.raises(ChildProcessError):
        os.waitpid(watch.pid, os.WNOHANG)
    watch.kill()  # nobody is there: nothing happens
    await asyncio.sleep(0)
    assert ended.statuses == [7]


async def test_a_child_can_be_killed_however_busy_it_is() -> None:
    """By SIGKILL, which is told as such."""
    ended = Ended()
    watch = Watch(_child("while True: pass").pid, ended)
    watch.kill()
    assert await ended.wait() == -signal.SIGKILL


async def test_a_child_starts_with_its_descriptors_and_nothing_else() -> None:
    """The other end of its pair is open in it; what was not passed is not."""
    ours, theirs = pair()
    left, right = pair()
    ended = Ended()
    with ours, theirs, left, right:
        # `timeit` runs what it is given: here, a look at both descriptors.
        code = f"import os; os.write({theirs.fileno()}, b'hello'); os.fstat({right.fileno()})"
        child = start("timeit", ["-n1", "-r1", code], [theirs.fileno()])
        watch = Watch(child.pid, ended)
        assert await ended.wait() == 1  # the second one is not there
        assert ours.recv(10) == b"hello"
        assert not watch.alive


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (-signal.SIGSEGV, "killed by SIGSEGV"),
        (-signal.SIGKILL, "killed by SIGKILL (perhaps for memory)"),
        (-63, "killed by signal 63"),
    ],
)
def test_how_a_process_ended_is_told_in_words(status: int, said: str) -> None:
    """With a hint where the kernel may have done it."""
    assert describe_exit(status) == said


@given(st.lists(st.floats(0, 100), max_size=30))
def test_restarts_wait_longer_only_while_a_process_dies_young(lives: list[float]) -> None:
    """Never longer than the longest wait; a life of some length begins anew."""
    backoff = Backoff(young=10.0, longest=10.0)
    young = 0
    before = 0.0
    for lived in lives:
        delay = backoff.delay(lived)
        young = young + 1 if lived < 10.0 else 1
        assert 0.0 <= delay <= 10.0
        if young <= 3:
            assert delay == 0.0
        else:
            assert delay >= before
            assert delay > 0.0
        before = delay


def test_only_strangers_are_reaped() -> None:
    """An adopted orphan that has ended is collected; our own children are left to their watches."""
    stranger = os.fork()
    if stranger == 0:
        os._exit(0)
    os.waitid(os.P_PID, stranger, os.WEXITED | os.WNOWAIT)
    reap_strangers({stranger})
    assert os.waitid(os.P_PID, stranger, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    reap_strangers(set())
    with pytest.raises(ChildProcessError):
        os.waitpid(stranger, os.WNOHANG)
