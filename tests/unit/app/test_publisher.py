"""The flip: the table is there before its word, slow workers delay it a moment and never break it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from hotswap.app import publisher as publishing
from hotswap.app.publisher import DIRECTORY, Publisher
from hotswap.app.workers import Workers
from hotswap.core.routing import RouteTable, Split
from hotswap.ipc.messages import Tripped
from hotswap.ipc.tables import read_table, write_table
from hotswap.ipc.words import STABLE_ONLY, Epoch, Words


class OneWorker:
    """What the publisher knows of a worker."""

    def __init__(self, *, listening: bool = True) -> None:
        self.listening = listening


class FakeWorkers:
    """Two workers; ``acks`` is how many of them acknowledge at once."""

    def __init__(self, epoch: Epoch, folder: Path) -> None:
        self.acks = 2
        self.live = [OneWorker(), OneWorker()]
        self.pushed: list[int] = []
        self.held: list[tuple[int, int]] = []
        self.gate: asyncio.Event | None = None
        self._epoch = epoch
        self._folder = folder

    def published(self, index: int, previous: int) -> None:
        self.held.append((index, previous))

    def push(self, table: RouteTable) -> None:
        # When a worker hears of it the file is there and the word is not stored.
        assert read_table(str(self._folder), table.index, table.revision) == table
        assert self._epoch.revision(table.index) < table.revision
        self.pushed.append(table.revision)

    async def wait_acks(self, index: int, revision: int, seconds: float) -> int:
        assert self._epoch.revision(index) < revision
        assert seconds <= 0.25
        if self.gate is not None:
            await self.gate.wait()
        return self.acks


class Rig:
    """A publisher over fake workers."""

    def __init__(self, folder: Path) -> None:
        (folder / "tables").mkdir()
        self.folder = folder
        self.epoch = Epoch(Words.create("test-epoch", 16))
        self.workers = FakeWorkers(self.epoch, folder)
        self.publisher = Publisher(str(folder), self.epoch, cast(Workers, self.workers))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def table(revision: int, index: int = 1) -> RouteTable:
    return RouteTable(f"m{index}", index, revision, "v1", None, ())


async def test_a_flip_is_the_store_of_the_word(rig: Rig) -> None:
    """File, push, a moment for acknowledgements, word; the answer says how long each took."""
    published = await rig.publisher.publish(table(1))
    assert (published.error, published.acks, published.workers) == ("", 2, 2)
    assert 0 <= published.flip_ms <= published.publish_ms
    assert rig.epoch.revision(1) == 1
    assert rig.publisher.tables == {1: table(1)}
    assert rig.workers.pushed == [1]


async def test_workers_that_do_not_answer_do_not_stop_it(rig: Rig) -> None:
    """They will find the table by themselves."""
    rig.workers.acks = 0
    published = await rig.publisher.publish(table(1))
    assert (published.error, published.acks) == ("", 0)
    assert rig.epoch.revision(1) == 1


async def test_until_the_word_is_stored_the_old_revision_is_in_force(rig: Rig) -> None:
    """While acknowledgements are awaited nothing has changed."""
    await rig.publisher.publish(table(1))
    rig.workers.gate = asyncio.Event()
    flip = asyncio.create_task(rig.publisher.publish(table(2)))
    await asyncio.sleep(0)
    assert rig.epoch.revision(1) == 1
    rig.workers.gate.set()
    await flip
    assert rig.epoch.revision(1) == 2


@pytest.mark.parametrize("revision", [0, 4, 5])
async def test_an_older_revision_is_refused(rig: Rig, revision: int) -> None:
    """What was committed is never taken back by a late message."""
    await rig.publisher.publish(table(5))
    published = await rig.publisher.publish(table(revision))
    assert published.error == f"revision {revision} is not newer than 5"
    assert rig.epoch.revision(1) == 5
    assert rig.workers.pushed == [5]


async def test_flips_that_overtake_each_other_never_take_the_word_back(rig: Rig) -> None:
    """The older one, whose workers were slow, is refused once a newer one is in force."""
    rig.workers.gate = gate = asyncio.Event()
    slow = asyncio.create_task(rig.publisher.publish(table(1)))
    await asyncio.sleep(0)
    rig.workers.gate = None
    assert (await rig.publisher.publish(table(2))).error == ""
    gate.set()
    assert "published meanwhile" in (await slow).error
    assert rig.epoch.revision(1) == 2
    assert rig.publisher.tables == {1: table(2)}


async def test_a_table_that_cannot_be_written_is_not_flipped_to(rig: Rig) -> None:
    """The disk is full: the old table stays in force, the answer says so."""
    await rig.publisher.publish(table(1))
    (rig.folder / "tables").rename(rig.folder / "gone")
    published = await rig.publisher.publish(table(2))
    assert "could not be written" in published.error
    assert rig.epoch.revision(1) == 1
    assert rig.workers.pushed == [1]
    (rig.folder / "gone").rename(rig.folder / "tables")
    assert (await rig.publisher.publish(table(2))).error == ""


async def test_the_two_newest_tables_are_kept(rig: Rig) -> None:
    """A worker that read the word before the flip can still load what it named."""
    for revision in range(1, 6):
        await rig.publisher.publish(table(revision))
        kept = [r for r in range(1, 6) if read_table(str(rig.folder), 1, r)]
        assert kept == list(range(max(1, revision - 1), revision + 1))


async def test_new_models_are_counted_in_the_directory(rig: Rig) -> None:
    """Word 0 moves for a model's first table and for no later one."""
    for revision, index in ((1, 1), (2, 1), (1, 2), (3, 1)):
        await rig.publisher.publish(table(revision, index))
    assert rig.epoch.revision(DIRECTORY) == 2


async def test_workers_may_hold_what_was_there_before(rig: Rig) -> None:
    """The revision before is what no worker has drained yet."""
    await rig.publisher.publish(table(1))
    await rig.publisher.publish(table(2))
    assert rig.workers.held == [(1, 1), (1, 1)]


async def test_a_restored_table_is_in_force_before_any_worker_is(rig: Rig) -> None:
    """And the next revision goes on from it."""
    rig.publisher.restore(table(7))
    assert rig.epoch.revision(1) == 7
    assert rig.epoch.revision(DIRECTORY) == 1
    assert read_table(str(rig.folder), 1, 7) == table(7)
    assert "not newer than 7" in (await rig.publisher.publish(table(7))).error
    assert (await rig.publisher.publish(table(8))).error == ""


async def test_lowering_waits_for_nothing(rig: Rig) -> None:
    """Stable only is one bit; the next flip ends it."""
    await rig.publisher.publish(table(1))
    rig.publisher.stable_only(1)
    assert rig.epoch.view[1] == 1 | STABLE_ONLY
    await rig.publisher.publish(table(2))
    assert rig.epoch.view[1] == 2


def test_the_wait_for_workers_is_short() -> None:
    """A dead worker costs a flip a quarter of a second at most."""
    assert publishing.ACK_SECONDS <= 0.25


async def test_a_left_file_of_that_revision_is_overwritten(rig: Rig) -> None:
    """What a flip that was refused has written does not come back."""
    write_table(str(rig.folder), RouteTable("other", 1, 1, None, None, ()))
    await rig.publisher.publish(table(1))
    assert read_table(str(rig.folder), 1, 1) == table(1)


def divided(revision: int, test: str = "t") -> RouteTable:
    split = Split(test, 1, "v2", "v1", weight=500, salt="s", budget_ms=100.0)
    return RouteTable("m1", 1, revision, "v1", None, (), split)


async def test_a_trip_takes_the_candidate_out_of_every_worker_at_once(rig: Rig) -> None:
    """Bit 63 is set for the committed test alone, and a flip under way does not clear it."""
    await rig.publisher.publish(divided(1))
    assert not rig.publisher.trip(Tripped(1, "other", "", 5))
    assert not rig.publisher.trip(Tripped(2, "t", "", 5))
    assert rig.epoch.words[1] == 1
    rig.workers.gate = asyncio.Event()
    flip = asyncio.create_task(rig.publisher.publish(divided(2)))
    await asyncio.sleep(0)
    assert rig.publisher.trip(Tripped(1, "t", "five in a row", 5))
    assert rig.epoch.words[1] == 1 | STABLE_ONLY
    rig.workers.gate.set()
    await flip
    assert rig.epoch.words[1] == 2 | STABLE_ONLY
    assert rig.publisher.tripped[1].reason == "five in a row"


async def test_another_attempt_starts_with_a_clean_word(rig: Rig) -> None:
    """A trip is forgotten with its test."""
    for revision, after in ((2, table(2)), (4, divided(4, "retry"))):
        await rig.publisher.publish(divided(revision - 1))
        assert rig.publisher.trip(Tripped(1, "t", "", 5))
        await rig.publisher.publish(after)
        assert rig.epoch.words[1] == revision
        assert rig.publisher.tripped == {}


async def test_what_control_lowered_stays_so_under_a_flip_of_the_same_test(rig: Rig) -> None:
    """Only a table of another test, or of none, brings a candidate back."""
    await rig.publisher.publish(divided(1))
    rig.publisher.stable_only(1)
    await rig.publisher.publish(divided(2))
    assert rig.epoch.words[1] == 2 | STABLE_ONLY
    assert rig.publisher.tripped == {}
    await rig.publisher.publish(divided(3, "another"))
    assert rig.epoch.words[1] == 3
    await rig.publisher.publish(divided(4))
    assert rig.epoch.words[1] == 4


async def test_what_was_taken_out_is_out_after_a_restart(rig: Rig) -> None:
    """By control or by a breaker; not what belonged to another test."""
    rig.publisher.restore(divided(3))
    rig.publisher.restore_lowered({1: "another", 7: "t"}, [Tripped(1, "another", "", 5)])
    assert rig.epoch.words[1] == 3
    rig.publisher.restore_lowered({1: "t"}, [])
    assert rig.epoch.words[1] == 3 | STABLE_ONLY
    assert not rig.publisher.stable_only(1), "it was lowered already"
    await rig.publisher.publish(divided(4))
    assert rig.epoch.words[1] == 4 | STABLE_ONLY
    assert rig.publisher.tripped == {}
    rig.publisher.restore_lowered({}, [Tripped(1, "t", "five in a row", 5)])
    assert rig.publisher.tripped[1].reason == "five in a row"
