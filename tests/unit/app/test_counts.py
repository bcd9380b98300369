"""Evidence on its way to control: numbered, kept until it is saved, sent again in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hotswap.app.counts import Counts
from hotswap.core.windows import Window
from hotswap.ipc.messages import Counted


def windows(*numbers: int) -> list[Window]:
    return [Window("t", 1, "w", number, 0, 0) for number in numbers]


def numbers(sent: list[Counted]) -> list[int]:
    return [batch.sequence for batch in sent]


def test_batches_are_numbered_and_sent_as_they_come() -> None:
    """From 1 on, once control is there."""
    sent: list[Counted] = []
    counts = Counts(sent.append)
    counts.add(windows(1))
    assert sent == []
    counts.open()
    counts.add(windows(2, 3))
    assert numbers(sent) == [1, 2]
    assert [window.number for window in sent[1].windows] == [2, 3]


def test_another_control_gets_what_none_has_saved() -> None:
    """In order, with the same numbers, before anything new."""
    sent: list[Counted] = []
    counts = Counts(sent.append)
    counts.open()
    for number in range(4):
        counts.add(windows(number))
    counts.saved(2)
    counts.close()
    counts.add(windows(9))
    sent.clear()
    counts.open()
    counts.add(windows(10))
    assert numbers(sent) == [3, 4, 5, 6]
    counts.saved(6)
    counts.close()
    sent.clear()
    counts.open()
    assert sent == []


def test_the_oldest_are_dropped_and_that_is_said_once_a_minute() -> None:
    """A control that never saves does not fill the memory."""
    sent: list[Counted] = []
    counts = Counts(sent.append, most=3)
    for number in range(5):
        counts.add(windows(number))
    assert counts.dropped == 2
    counts.check(100.0)
    assert counts.dropped == 0
    counts.add(windows(6))
    counts.check(110.0)
    assert counts.dropped == 1
    counts.check(160.0)
    assert counts.dropped == 0
    counts.open()
    assert numbers(sent) == [4, 5, 6]


@given(st.lists(st.sampled_from(["add", "save", "restart"]), max_size=60))
def test_a_control_that_dies_at_any_time_misses_nothing(steps: list[str]) -> None:
    """What was saved and what is sent after the last start are all that was ever counted."""
    sent: list[Counted] = []
    counts = Counts(sent.append)
    counts.open()
    saved: set[int] = set()
    added = 0
    for step in steps:
        if step == "add":
            counts.add(windows(added))
            added += 1
        elif step == "save" and sent:
            saved |= {window.number for batch in sent for window in batch.windows}
            counts.saved(sent[-1].sequence)
            sent.clear()
        elif step == "restart":
            counts.close()
            sent.clear()
            counts.open()
    unsaved = [window.number for batch in sent for window in batch.windows]
    assert unsaved == sorted(set(unsaved))
    assert saved | set(unsaved) == set(range(added))
