"""F7: rankings compared in blocks of one positive and the next negatives."""

from __future__ import annotations

import doctest
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.stats import auc as module
from hotswap.stats import differences
from hotswap.stats.auc import WAITING, Blocks, Row, auc, feed

FOUND = math.log(20)
SCORES = st.one_of(st.none(), st.sampled_from((0.1, 0.2, 0.5, math.nan, math.inf, -math.inf)))
ROWS = st.lists(st.tuples(st.booleans(), SCORES, SCORES), max_size=120)


def _frozen(negatives_a_block: int) -> Blocks:
    """Blocks whose ratio is frozen already."""
    return Blocks(negatives_a_block, (20, 20 * negatives_a_block))


def test_the_examples_hold() -> None:
    """Every example in the docstrings gives what it says."""
    assert doctest.testmod(module).failed == 0


def test_a_block_is_one_positive_and_the_next_negatives() -> None:
    """Negatives before it are dropped, positives within it wait, and ties count half."""
    state = feed(
        _frozen(2),
        [
            (False, 0.5, 0.5),  # no block is open
            (True, 0.5, 0.5),
            (True, 0.9, 0.1),  # waits
            (False, 0.1, 0.5),  # 1 - 1/2
            (False, 0.5, 0.9),  # 1/2 - 0
            (False, 0.5, 0.5),  # the second block: 1 - 0
        ],
    )
    assert dict(state.counts) == {250: 1}
    assert (state.blocks, state.taken, state.halves) == (1, 1, 2)
    assert state.open == ((0.9, 0.1),)
    assert state.waiting == ()
    assert state.dropped == (0, 1)


def test_a_missing_score_loses_every_comparison() -> None:
    """The candidate's is the worst loss, stable's the best, and both missing is a tie."""
    for rows, d in (
        ([(True, 0.5, None), (False, 0.1, 0.1)], 500),
        ([(True, 0.5, 0.5), (False, 0.1, math.nan)], 500),
        ([(True, None, 0.5), (False, 0.1, 0.1)], -500),
        ([(True, None, None), (False, 0.1, 0.1)], 0),
        ([(True, 0.5, 0.5), (False, None, None)], 0),
    ):
        assert dict(feed(_frozen(1), rows).counts) == {d: 1}


@given(ROWS, st.lists(st.integers(0, 120), max_size=4))
def test_batches_change_nothing(rows: list[Row], cuts: list[int]) -> None:
    """However the rows are cut into calls, the same state comes out, and it can be stored."""
    whole = feed(Blocks(), rows)
    state, last = Blocks(), 0
    for cut in [*sorted(cuts), len(rows)]:
        state = feed(state, rows[last:cut])
        state = msgspec.json.decode(msgspec.json.encode(state), type=Blocks)
        last = max(last, cut)
    assert state == whole


@given(ROWS)
def test_every_row_is_somewhere(rows: list[Row]) -> None:
    """Rows that froze the ratio, counted, open, waiting or dropped: none is lost or counted twice."""
    state = feed(Blocks(), rows)
    m = state.negatives_a_block
    positives = state.first[0] + state.blocks + len(state.open) + len(state.waiting)
    negatives = state.first[1] + state.blocks * m + state.taken
    assert positives + state.dropped[0] == sum(positive for positive, _, _ in rows)
    assert negatives + state.dropped[1] == sum(not positive for positive, _, _ in rows)
    assert sum(state.counts.values()) == state.blocks


@given(ROWS)
def test_swapped_versions_mirror(rows: list[Row]) -> None:
    """With the versions swapped, the differences change their sign, but for the unbiased toss."""
    one = feed(_frozen(1), rows)
    other = feed(_frozen(1), [(positive, b, a) for positive, a, b in rows])
    assert {-at: n for at, n in one.counts.items()} == dict(other.counts)


@pytest.mark.parametrize(("every", "ratio"), [(2, 1), (11, 10), (101, 50), (5000, 50)])
def test_the_ratio_is_frozen_from_the_first_rows(every: int, ratio: int) -> None:
    """Negatives to a positive, 50 at most; with hardly any positive it is 50 too."""
    state = feed(Blocks(), [(at % every == every - 1, 0.5, 0.5) for at in range(2500)])
    assert state.negatives_a_block == ratio
    assert sum(state.first) <= 1020


def test_positives_without_negatives_wait_within_bounds() -> None:
    """The queue is bounded, and what does not fit is counted."""
    state = feed(_frozen(5), [(True, 0.5, 0.5)] * (WAITING + 10))
    assert len(state.waiting) == WAITING
    assert state.dropped == (9, 0)


def test_the_state_given_stays_as_it_is() -> None:
    """Feeding makes a new state and leaves the old one alone."""
    before = feed(_frozen(1), [(True, 0.5, 0.1), (False, 0.1, 0.5)])
    kept = msgspec.json.encode(before)
    feed(before, [(True, 0.5, 0.1), (False, 0.1, 0.5)] * 5)
    assert msgspec.json.encode(before) == kept
    assert Blocks().counts == {}


@given(
    st.lists(st.sampled_from((0.1, 0.2, 0.3)), min_size=1, max_size=20),
    st.lists(st.sampled_from((0.1, 0.2, 0.3)), min_size=1, max_size=20),
)
def test_the_exact_auc_is_the_mean_over_all_pairs(above: list[float], below: list[float]) -> None:
    """Every positive with every negative, ties counting half."""
    won = sum((a > b) + 0.5 * (a == b) for a in above for b in below)
    assert auc(above, below) == pytest.approx(won / (len(above) * len(below)))
    assert auc(below, above) == pytest.approx(1 - auc(above, below))
    assert math.isnan(auc([], below))


def _rows(rng: np.random.Generator, size: int, share: float, ours: float, stable: float) -> list[Row]:  # fmt: skip
    """Correlated normal scores with these AUCs."""
    positive = rng.random(size) < share
    shared, a, b = rng.standard_normal((3, size))
    mix = math.sqrt(0.9)
    shift = {0.8: 1.19023, 0.79: 1.14047, 0.76: 0.99883}
    first = positive * shift[stable] + mix * shared + math.sqrt(0.1) * a
    second = positive * shift[ours] + mix * shared + math.sqrt(0.1) * b
    return list(zip(positive.tolist(), first.tolist(), second.tolist(), strict=True))


def test_the_blocks_mean_is_the_difference_of_the_aucs() -> None:
    """Over 20,000 rows the mean of the blocks and of all pairs agree."""
    rows = _rows(np.random.default_rng(1), 20_000, 0.1, 0.76, 0.8)
    state = feed(Blocks(), rows)
    exact = [
        auc([r[side] or 0.0 for r in rows if r[0]], [r[side] or 0.0 for r in rows if not r[0]])
        for side in (1, 2)
    ]
    assert differences.mean(state.counts) == pytest.approx(exact[0] - exact[1], abs=0.01)
    assert exact[0] - exact[1] == pytest.approx(0.04, abs=0.01)


def _found(rng: np.random.Generator, ours: float, margin: float, looks: int, *, promote: bool) -> int | None:  # fmt: skip
    """Positives counted (looked at each 400 rows) until it is found."""
    state = Blocks()
    for _ in range(looks):
        state = feed(state, _rows(rng, 400, 0.1, ours, 0.8))
        test = differences.promotion_evidence if promote else differences.rollback_evidence
        if test(state.counts, margin) >= FOUND:
            return state.blocks
    return None


def test_a_lower_auc_is_found() -> None:
    """.80 to .76 within a few hundred positives, with ten negatives a block."""
    rng = np.random.default_rng(2)
    found = [_found(rng, 0.76, 0.0, 40, promote=False) for _ in range(12)]
    assert None not in found
    assert float(np.mean([n for n in found if n])) < 400


def test_at_the_margin_either_verdict_is_seldom_false() -> None:
    """.80 to .79 with a margin of exactly what lies between: found in at most 5 % of runs."""
    rng = np.random.default_rng(3)
    for promote in (False, True):
        found = [_found(rng, 0.79, 0.01, 20, promote=promote) for _ in range(40)]
        assert sum(n is not None for n in found) <= 40 * 0.05 + 3 * math.sqrt(40 * 0.05 * 0.95)
