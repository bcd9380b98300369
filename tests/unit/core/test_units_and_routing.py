"""Keyed units count once, and keys keep their arms."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hotswap.core.routing import WHOLE, Split, assign, hashed, place
from hotswap.core.units import Units
from hotswap.core.windows import UnitEvent, Window

EVENTS = st.lists(st.builds(UnitEvent, st.integers(0, 5), st.integers(0, 2), st.integers(0, 2)))


@given(st.lists(EVENTS, max_size=5), st.integers(0, 5))
def test_each_unit_counts_once_by_kind_over_all_workers(
    reports: list[list[UnitEvent]], crash: int
) -> None:
    """However often and by whichever workers a unit is reported, also after control began anew."""
    units = Units()
    saved: list[tuple[int, int]] = []
    first: list[UnitEvent] = []
    for number, events in enumerate(reports):
        if number == crash:
            units = Units()
            units.add(saved)
        first += units.window(Window("t", 1, "w", number, 1, 1, units=events)).units
        saved += units.fresh
        units.fresh = []
    counted = [(event.kind, event.unit) for event in first]
    assert len(counted) == len(set(counted))
    assert set(counted) == {(e.kind, e.unit) for events in reports for e in events}
    assert len(units) == len(set(counted))


def split(weight: int, twin: bool) -> Split:
    share = min(weight, WHOLE - weight) if twin else 0
    return Split("t", 1, "v2", "v1", weight, "", 100.0, twin_weight=share)


@given(st.integers(0, WHOLE - 1), st.integers(0, WHOLE), st.integers(0, WHOLE), st.booleans())
def test_raising_a_weight_only_moves_keys_to_the_candidate(
    at: int, one: int, other: int, twin: bool
) -> None:
    """No key ever goes from the candidate back to stable while weights grow."""
    low, high = sorted((one, other))
    if assign(split(low, twin), at) == "candidate":
        assert assign(split(high, twin), at) == "candidate"


@given(st.integers(0, WHOLE), st.booleans())
def test_each_arm_has_exactly_its_share(weight: int, twin: bool) -> None:
    """Of all places the candidate has its weight, and the twin the same where there is room."""
    arms = [assign(split(weight, twin), at) for at in range(WHOLE)]
    assert arms.count("candidate") == weight
    assert arms.count("twin") == split(weight, twin).twin_weight


def test_keys_fall_evenly_and_anew_with_each_salt() -> None:
    """Hashed keys are spread like coins, and another salt is another draw."""
    keys = [f"user-{number}".encode() for number in range(20_000)]
    ours = {key for key in keys if place(hashed("one", key)) < 2000}
    again = {key for key in keys if place(hashed("two", key)) < 2000}
    assert abs(len(ours) - 4000) < 250  # four standard deviations
    assert abs(len(ours & again) - 800) < 120
