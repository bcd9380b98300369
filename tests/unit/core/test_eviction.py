"""Eviction: least recently used first, nothing that is held or fresh, no more than is needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hotswap.core.eviction import Resident, surplus, victims

RESIDENTS = st.lists(
    st.tuples(st.integers(0, 100), st.floats(0, 200), st.booleans()), max_size=12
).map(lambda rows: [Resident("m", f"v{at}", *row) for at, row in enumerate(rows)])
BYTES = st.integers(0, 1000)
NOW = 200.0
REST = 60.0


def _free(residents: list[Resident], budget: int, gone: list[Resident]) -> int:
    return budget - sum(each.memory_bytes for each in residents if each not in gone)


@given(RESIDENTS, BYTES, BYTES)
def test_what_goes_suffices_and_was_idle(
    residents: list[Resident], budget: int, needed: int
) -> None:
    """What goes makes enough room, and none of it is held or was used within the rest time."""
    gone = victims(residents, budget, needed, NOW, REST)
    if gone is not None:
        assert _free(residents, budget, gone) >= needed
        assert all(not each.held and each.last_used <= NOW - REST for each in gone)


@given(RESIDENTS, BYTES, BYTES)
def test_none_means_that_even_all_idle_versions_would_not_do(
    residents: list[Resident], budget: int, needed: int
) -> None:
    """It gives up only if taking everything that may go would not make enough room."""
    idle = [each for each in residents if not each.held and each.last_used <= NOW - REST]
    gone = victims(residents, budget, needed, NOW, REST)
    assert (gone is None) == (_free(residents, budget, idle) < needed)


@given(RESIDENTS, BYTES, BYTES)
def test_no_more_goes_than_has_to_and_the_oldest_first(
    residents: list[Resident], budget: int, needed: int
) -> None:
    """The last to go was still needed, and nothing idle that stays was used longer ago."""
    gone = victims(residents, budget, needed, NOW, REST)
    if gone:
        assert _free(residents, budget, gone[:-1]) < needed
        stays = [r for r in residents if r not in gone and not r.held and r.last_used <= NOW - REST]
        assert all(each.last_used >= gone[-1].last_used for each in stays)


def test_room_that_is_there_costs_nobody() -> None:
    """With enough free bytes nothing goes."""
    assert victims([Resident("m", "v1", 10, 0.0, False)], 100, 90, NOW) == []


@given(RESIDENTS, BYTES)
def test_a_surplus_goes_as_far_as_it_may(residents: list[Resident], budget: int) -> None:
    """The oldest idle versions until the rest fits, or all of them; never a held or fresh one."""
    gone = surplus(residents, budget, NOW, REST)
    idle = [each for each in residents if not each.held and each.last_used <= NOW - REST]
    assert all(each in idle for each in gone)
    assert _free(residents, budget, gone) >= 0 or len(gone) == len(idle)
    if gone:
        assert _free(residents, budget, gone[:-1]) < 0
