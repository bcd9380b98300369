"""What both versions said to the same requests, as it is shown."""

from __future__ import annotations

import msgspec

from hotswap.core.evidence import Evidence, Stage
from hotswap.core.plan import compile_steps
from hotswap.core.rollout import Rollout, Status
from hotswap.core.rollout_view import rollout_view
from hotswap.core.rollout_views import PairView
from hotswap.core.strategy import parse
from hotswap.core.windows import PairCounts


def shown(*pairs: PairCounts) -> PairView | None:
    spec = parse({"model": "m", "version": "v2", "strategy": "shadow"})
    stages = tuple(Stage(n, 0, mirror=10_000, pairs=each) for n, each in enumerate(pairs, 1))
    rollout = Rollout("r", spec, compile_steps(spec), Status(), "v1", Evidence(stages))
    return rollout_view(rollout, None, (), None, "v1").pairs


def test_stages_are_added_and_labels_told_apart() -> None:
    """Stable's label first, then what the candidate said instead."""
    one = PairCounts(5, 4, 3, 1, 0, 0, 2.0, 1.5, {"a|a": 3, "a|b": 1})
    other = PairCounts(4, 4, 4, 0, 0, 0, 0.0, 0.0, {"a|a": 2, "b|b": 2})
    assert shown(one, other) == PairView(
        9, 8, 7, 1, 0, 0, 0.25, 1.5, {"a": {"a": 5, "b": 1}, "b": {"b": 2}}
    )


def test_before_there_are_any_there_is_nothing_to_show() -> None:
    """And where nobody answered there is no difference to tell."""
    assert shown() is None
    none = shown(PairCounts(3, 0, 0, 0, 0, 3))
    assert none is not None
    assert (none.difference, none.largest) == (None, None)
    assert msgspec.json.encode(none)
