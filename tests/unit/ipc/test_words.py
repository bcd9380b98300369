"""Words in shared memory: flips, the stable-only bit, and what a host was running."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.ipc.words import HEALTH_WORDS, REVISION_MASK, STABLE_ONLY, Epoch, Health, Words


@pytest.fixture
def epoch() -> Epoch:
    return Epoch(Words.create("test-epoch", 8))


@given(st.integers(0, REVISION_MASK))
def test_stable_only_keeps_the_revision(revision: int) -> None:
    """Bit 63 changes nothing else; setting it twice is setting it once; a commit ends it."""
    epoch = Epoch(Words.create("test-epoch", 2))
    epoch.commit(1, revision)
    assert epoch.revision(1) == revision
    epoch.stable_only(1)
    epoch.stable_only(1)
    assert epoch.revision(1) == revision
    assert epoch.view[1] == revision | STABLE_ONLY
    epoch.commit(1, revision)
    assert epoch.view[1] == revision
    os.close(epoch.words.fd)


def test_models_do_not_touch_each_other(epoch: Epoch) -> None:
    """A flip of one model leaves the words beside it alone."""
    epoch.commit(3, 7)
    epoch.stable_only(4)
    assert [epoch.revision(index) for index in range(8)] == [0, 0, 0, 7, 0, 0, 0, 0]
    assert epoch.view[3] == 7


def test_a_new_word_is_zero(epoch: Epoch) -> None:
    """No revision is in force until one is committed."""
    assert epoch.revision(5) == 0


_CHILD = """
import sys
from hotswap.ipc.words import Epoch, Words
epoch = Epoch(Words(int(sys.argv[1]), 8))
for line in sys.stdin:
    command, index, revision = line.split()
    if command == "commit":
        epoch.commit(int(index), int(revision))
    print(epoch.revision(int(index)), flush=True)
"""


def test_two_processes_see_each_others_flips(epoch: Epoch) -> None:
    """An inherited descriptor leads to the same words, in both directions and at once."""
    fd = epoch.words.fd
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(fd)],
        pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None

        def ask(line: str) -> int:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(line + "\n")
            child.stdin.flush()
            return int(child.stdout.readline())

        for revision in range(1, 50):
            epoch.commit(2, revision)
            assert ask("read 2 0") == revision
        assert ask(f"commit 3 {REVISION_MASK}") == REVISION_MASK
        assert epoch.revision(3) == REVISION_MASK
        child.stdin.close()


def test_health_tells_what_runs_since_when() -> None:
    """Busy and idle, by slot; the token stays readable for one who looks after a crash."""
    health = Health(Words.create("test-health", HEALTH_WORDS))
    health.start(3, incarnation=2)
    assert health.busy_since(3) == 0
    assert health.running(3) == (0, 2)
    health.busy(3, 123, token=99)
    assert health.busy_since(3) == 123
    assert health.running(3) == (99, 2)
    assert health.busy_since(2) == health.busy_since(4) == 0
    health.idle(3)
    assert health.busy_since(3) == 0
    assert health.running(3) == (0, 2)


def test_a_new_incarnation_begins_blameless() -> None:
    """What the process before it ran is not held against a restarted host."""
    health = Health(Words.create("test-health", HEALTH_WORDS))
    health.start(0, 1)
    health.busy(0, 5, token=7)
    health.start(0, 2)
    assert health.running(0) == (0, 2)
    assert health.busy_since(0) == 0
