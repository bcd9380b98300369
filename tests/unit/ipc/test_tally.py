"""Tallies: the files' sum is what was counted, whatever happens to who counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.core.histogram import bucket, upper_bound
from hotswap.ipc.tally import KINDS, TallyFile, read_tallies

EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from([("m", "v1", "stable"), ("m", "v2", "stable"), ("m", "v1", "pinned")]),
        st.one_of(st.none(), st.sampled_from(KINDS)),
        st.integers(0, 10**11),
        st.integers(0, 50),
    ),
    max_size=60,
)


@pytest.fixture
def tally(tmp_path: Path) -> Iterator[TallyFile]:
    file = TallyFile(tmp_path / "0.0")
    yield file
    file.close()


@settings(max_examples=20, deadline=None)
@given(events=EVENTS)
def test_the_sum_over_files_is_what_was_counted(
    events: list[tuple[int, tuple[str, str, str], str | None, int, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Successes, errors by kind, rows, times and latency buckets, over three workers' files."""
    folder = tmp_path_factory.mktemp("tally")
    files = [TallyFile(folder / f"{slot}.0") for slot in range(3)]
    for slot, key, kind, ns, rows in events:
        block = files[slot].block(*key)
        block.begin()
        if kind is None:
            block.succeed(ns, rows, ns // 3, ns // 2, wall_ms=slot + 1)
        else:
            block.fail(ns, kind)
    found = {(s.model, s.version, s.role): s for s in read_tallies(folder)}
    assert list(found) == sorted({key for _, key, _, _, _ in events})
    for key, stats in found.items():
        good = [(s, n, r) for s, k, kind, n, r in events if k == key and kind is None]
        bad = [(kind, n) for _, k, kind, n, _ in events if k == key and kind is not None]
        assert stats.success == stats.executions == len(good)
        assert stats.inferences == sum(rows for _, _, rows in good)
        assert stats.success_ns == sum(ns for _, ns, _ in good)
        assert stats.queue_ns == sum(ns // 3 for _, ns, _ in good)
        assert stats.compute_ns == sum(ns // 2 for _, ns, _ in good)
        assert stats.fail_ns == sum(ns for _, ns in bad)
        assert stats.errors == {k: sum(kind == k for kind, _ in bad) for k, _ in bad}
        assert stats.last_inference == max((slot + 1 for slot, _, _ in good), default=0)
        assert sum(stats.latency.values()) == len(good)
        for _, ns, _ in good:
            assert upper_bound(bucket(ns)) in stats.latency
        assert stats.inflight == 0
    for file in files:
        file.close()


def test_what_has_begun_is_in_flight_until_it_ends(tally: TallyFile, tmp_path: Path) -> None:
    """In flight is what has begun and neither succeeded nor failed."""
    block = tally.block("m", "v1", "stable")
    for _ in range(3):
        block.begin()
    assert read_tallies(tmp_path)[0].inflight == 3
    block.succeed(1, 1, 0, 0, 1)
    block.fail(1, "model")
    assert read_tallies(tmp_path)[0].inflight == 1
    block.fail(1, "cancelled")
    assert read_tallies(tmp_path)[0].inflight == 0


def test_a_key_has_one_block(tally: TallyFile) -> None:
    """Asking again gives the same counters."""
    assert tally.block("m", "v1", "stable") is tally.block("m", "v1", "stable")
    assert tally.block("m", "v1", "stable").at != tally.block("m", "v1", "pinned").at


_COUNTS = """
import sys
from pathlib import Path
from hotswap.ipc.tally import TallyFile
block = TallyFile(Path(sys.argv[1])).block("m", "v1", "stable")
for _ in range(1000):
    block.begin()
    block.succeed(50_000, 2, 10, 20, 5)
block.begin()
print("counted", flush=True)
sys.stdin.read()
"""


def test_counts_outlive_the_process_that_made_them(tmp_path: Path) -> None:
    """After a kill -9 everything counted is there; a successor goes on, nothing stays in flight."""
    with subprocess.Popen(
        [sys.executable, "-c", _COUNTS, str(tmp_path / "0.0")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "counted\n"
        child.send_signal(signal.SIGKILL)
    (dead,) = read_tallies(tmp_path)
    assert (dead.success, dead.inferences, dead.inflight) == (1000, 2000, 1)
    successor = TallyFile(tmp_path / "0.0")
    assert read_tallies(tmp_path)[0].inflight == 0
    block = successor.block("m", "v1", "stable")
    block.begin()
    block.succeed(50_000, 2, 10, 20, 9)
    successor.block("m", "v2", "stable").begin()
    first, second = read_tallies(tmp_path)
    assert (first.success, first.last_inference, first.latency) == (1001, 9, {53248: 1001})
    assert (second.version, second.inflight) == ("v2", 1)
    successor.close()


def test_files_that_are_not_there_yet_count_nothing(tmp_path: Path) -> None:
    """A file that was just created and one that is empty of counts are passed over."""
    (tmp_path / "0.0").touch()
    TallyFile(tmp_path / "1.0").close()
    assert read_tallies(tmp_path) == []


def test_an_unused_file_takes_no_room(tally: TallyFile, tmp_path: Path) -> None:
    """The file is sparse: it holds what was counted and no more."""
    tally.block("m", "v1", "stable").begin()
    assert (tmp_path / "0.0").stat().st_blocks * 512 < 1 << 20


def test_fallbacks_and_dropped_copies_are_counted_beside_requests(
    tally: TallyFile, tmp_path: Path
) -> None:
    """By version and role, as everything else; they are no requests of their own."""
    candidate = tally.block("m", "v2", "candidate")
    candidate.begin()
    candidate.fail(1_000, "model")
    candidate.fell_back()
    shadow = tally.block("m", "v2", "shadow")
    shadow.drop()
    shadow.drop()
    first, second = read_tallies(tmp_path)
    assert (first.role, first.fallbacks, first.dropped, first.errors) == (
        "candidate", 1, 0, {"model": 1},
    )  # fmt: skip
    assert (second.role, second.fallbacks, second.dropped, second.success) == ("shadow", 0, 2, 0)
