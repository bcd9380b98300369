"""Two versions' answers to the same rows: the same or not, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from hotswap.core.windows import PairCounts
from hotswap.serving.compare import LABELS, Comparison, compare, count


def arrays(**columns: Sequence[Any]) -> dict[str, Any]:
    return {name: np.array(values) for name, values in columns.items()}


@pytest.mark.parametrize(
    ("ours", "theirs", "agree"),
    [
        (arrays(y=[1, 2]), arrays(y=[1, 2]), True),
        (arrays(y=[1, 2]), arrays(y=[1, 3]), False),
        (arrays(y=[True]), arrays(y=[False]), False),
        (arrays(y=[1.0, 1e6]), arrays(y=[1.0 + 1e-9, 1e6 + 0.5]), True),
        (arrays(y=[1.0]), arrays(y=[1.00001]), False),
        (arrays(y=[0.0]), arrays(y=[0.0]), True),
        (arrays(p=[[0.2, 0.8]]), arrays(p=[[0.4, 0.6]]), True),
        (arrays(p=[[0.2, 0.8]]), arrays(p=[[0.6, 0.4]]), False),
        (arrays(y=[1], p=[[0.2, 0.8]]), arrays(y=[1], p=[[0.3, 0.7]]), True),
        (arrays(y=[1], p=[[0.2, 0.8]]), arrays(y=[0], p=[[0.3, 0.7]]), False),
        (arrays(y=[1.0]), arrays(z=[1.0]), False),
        (arrays(y=[[1.0, 5.0]]), arrays(y=[[1.0, 5.1]]), False),
    ],
)
def test_labels_are_equal_numbers_close_and_probabilities_of_one_class(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], agree: bool
) -> None:
    """Each output by its own rule; all must agree."""
    assert compare(ours, theirs).agree is agree


def test_differences_are_absolute_sums_and_the_greatest() -> None:
    """Over all rows and numeric outputs."""
    found = compare(arrays(y=[1.0, 5.0]), arrays(y=[1.5, 3.0]))
    assert (found.difference, found.largest) == (2.5, 2.0)


def test_labels_are_paired_row_by_row() -> None:
    """Text as text; classes of probabilities only where there is no label."""
    text = {"y": np.array([b"cat", b"dog"], dtype=object)}
    other = {"y": np.array([b"cat", b"cow"], dtype=object)}
    assert compare(text, other).labels == [("cat", "cat"), ("dog", "cow")]
    assert compare(arrays(p=[[0.2, 0.8]]), arrays(p=[[0.6, 0.4]])).labels == [("1", "0")]
    both = compare(arrays(p=[[0.2, 0.8]], y=[7]), arrays(p=[[0.6, 0.4]], y=[8]))
    assert both.labels == [("7", "8")]


def test_halves_and_large_numbers_do_not_overflow() -> None:
    """Differences are summed as 64-bit floats."""
    ours = {"y": np.array([60_000.0], dtype=np.float16)}
    theirs = {"y": np.array([-60_000.0], dtype=np.float16)}
    found = compare(ours, theirs)
    assert not found.agree
    assert found.largest == pytest.approx(120_000, rel=1e-3)


def test_counts_add_and_the_table_of_labels_is_bounded() -> None:
    """At most 400 different pairs of labels are kept, and those go on counting."""
    pairs = PairCounts()
    for number in range(LABELS + 50):
        count(pairs, Comparison(True, 1.0, float(number), [(str(number), "x")]))
    count(pairs, Comparison(False, 0.5, 2.0, [("0", "x")]))
    assert (pairs.both, pairs.agree) == (LABELS + 51, LABELS + 50)
    assert pairs.difference == LABELS + 50.5
    assert pairs.largest == LABELS + 49
    assert len(pairs.confusion) == LABELS
    assert pairs.confusion["0|x"] == 2
    assert math.isfinite(pairs.difference)
