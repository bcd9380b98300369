"""Batches: nothing is lost, keys are never mixed, rows are limited, nobody is starved."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from hotswap.core.batching import BatchQueue


@dataclass(frozen=True)
class Item:
    """A waiting request."""

    number: int
    key: str
    total_rows: int
    alone: bool = False


def _items(*specs: tuple[str, int] | tuple[str, int, bool]) -> list[Item]:
    return [Item(number, *spec) for number, spec in enumerate(specs)]


def _queue(items: list[Item], batch_rows: int = 8) -> BatchQueue[Item]:
    queue: BatchQueue[Item] = BatchQueue(batch_rows)
    for item in items:
        queue.add(item)
    return queue


def _drain(queue: BatchQueue[Item]) -> list[list[Item]]:
    batches = []
    while queue:
        batches.append(queue.take())
    return batches


ITEMS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.booleans()), max_size=40
).map(lambda specs: _items(*specs))
LIMITS = st.integers(1, 16)


@given(ITEMS, LIMITS)
def test_everything_is_taken_once_and_in_order_of_its_key(items: list[Item], limit: int) -> None:
    """Every item leaves the queue exactly once, those of one key in the order of their arrival."""
    queue = _queue(items, limit)
    assert len(queue) == len(items)
    taken = [item for batch in _drain(queue) for item in batch]
    for key in "abc":
        assert [i for i in taken if i.key == key] == [i for i in items if i.key == key]
    assert len(taken) == len(items)
    assert queue.rows == 0
    assert len(queue) == 0
    assert queue.take() == []


@given(ITEMS, LIMITS)
def test_a_batch_has_one_key_and_at_most_the_limit_of_rows(items: list[Item], limit: int) -> None:
    """A batch never mixes keys; only a single item that is itself too large exceeds the limit."""
    for batch in _drain(_queue(items, limit)):
        assert batch
        assert len({item.key for item in batch}) == 1
        assert len(batch) == 1 or sum(item.total_rows for item in batch) <= limit


@given(ITEMS, LIMITS)
def test_what_must_run_alone_runs_alone(items: list[Item], limit: int) -> None:
    """An item that must run alone shares its batch with nothing."""
    for batch in _drain(_queue(items, limit)):
        if any(item.alone for item in batch):
            assert len(batch) == 1


@given(ITEMS, LIMITS)
def test_a_batch_is_as_large_as_it_may_be(items: list[Item], limit: int) -> None:
    """What could have joined a batch, next of its key and within the limit, has joined it."""
    waiting = {key: deque(i for i in items if i.key == key) for key in "abc"}
    for batch in _drain(_queue(items, limit)):
        mine = waiting[batch[0].key]
        for _ in batch:
            mine.popleft()
        if mine and not batch[0].alone and not mine[0].alone:
            assert sum(i.total_rows for i in batch) + mine[0].total_rows > limit


@given(st.lists(st.sampled_from("aaaaaab"), min_size=1, max_size=60))
def test_a_rare_key_waits_for_one_batch_of_each_other_key_at_most(keys: list[str]) -> None:
    """However much of one key waits and keeps arriving, another key's turn comes."""
    queue = _queue(_items(*((key, 4) for key in keys)))
    queue.add(Item(-1, "rare", 1))
    turns = 0
    while True:
        batch = queue.take()
        if batch[0].key == "rare":
            break
        turns += 1
        queue.add(Item(1000 + turns, "a", 8))
    assert turns <= len(set(keys))


def test_rows_are_counted() -> None:
    """`rows` is what waits, batch by batch."""
    queue = _queue(_items(("a", 3), ("a", 4), ("b", 2), ("a", 8)))
    assert queue.rows == 17
    assert [sum(i.total_rows for i in batch) for batch in _drain(queue)] == [7, 2, 8]
