"""Counters that can be merged in any order, kept apart by stage."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hotswap.core.analysis import analyse
from hotswap.core.evidence import (
    RECENT_BUCKETS,
    REFERENCE,
    Evidence,
    Reference,
    Stage,
    folded,
    opened,
)
from hotswap.core.strategy import parse
from hotswap.core.windows import ARMS, ERROR, FIRST, ArmCounts, PairCounts, UnitEvent, Window

COUNT = st.integers(0, 50)
HISTOGRAM = st.dictionaries(st.integers(0, 359), st.integers(1, 9), max_size=4)
ARM = st.builds(ArmCounts, COUNT, COUNT, COUNT, COUNT, HISTOGRAM, HISTOGRAM)
PAIRS = st.builds(
    PairCounts, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, st.floats(0, 1e6), st.floats(0, 1e6),
    st.dictionaries(st.sampled_from(["a|a", "a|b"]), COUNT),
)  # fmt: skip
EVENTS = st.lists(st.builds(UnitEvent, COUNT, st.integers(0, 2), st.integers(0, 2)), max_size=4)
WINDOWS = st.lists(
    st.builds(
        Window,
        test=st.just("r.1"),
        stage=st.integers(1, 3),
        worker=st.sampled_from(["w1", "w2"]),
        number=st.integers(0, 250),
        weight=st.just(500),
        twin_weight=st.just(500),
        arms=st.dictionaries(st.sampled_from(ARMS), ARM),
        units=EVENTS,
        pairs=st.none() | PAIRS,
        fallbacks=st.dictionaries(st.sampled_from(["error", "timeout"]), COUNT),
        excluded=COUNT,
    ),
    max_size=8,
)


def empty() -> Evidence:
    evidence = Evidence(reference=Reference({90: 200}))
    evidence = opened(evidence, Stage(1, 500, 500))
    return opened(evidence, Stage(2, 5000, warm_from=100))


@given(windows=WINDOWS, order=st.randoms(use_true_random=False), cut=st.integers(0, 8))
def test_merging_in_any_order_and_portion_gives_identical_evidence(
    windows: list[Window], order: Any, cut: int
) -> None:
    """Late, early, one by one or all at once: the counters are the same to the last bit."""
    whole = folded(empty(), windows)
    order.shuffle(windows)
    parts = folded(folded(empty(), windows[:cut]), windows[cut:])
    one_by_one = empty()
    for window in windows:
        one_by_one = folded(one_by_one, [window])
    assert parts == whole == one_by_one


@given(WINDOWS)
def test_stages_are_never_pooled(windows: list[Window]) -> None:
    """A window counts in its own stage alone, and in none that was never opened."""
    evidence = folded(empty(), windows)
    for number in (1, 2):
        stage = evidence.stage(number)
        assert stage is not None
        alone = folded(empty(), [w for w in windows if w.stage == number]).stage(number)
        assert stage == alone
    assert evidence.stage(3) is None
    assert evidence.reports == sum(window.stage != 3 for window in windows)


def test_opening_twice_changes_nothing() -> None:
    """A stage that is there keeps its counts."""
    window = Window("r.1", 1, "w", 1, 500, 500, {"candidate": ArmCounts(5)})
    evidence = folded(empty(), [window])
    assert opened(evidence, Stage(1, 500, 500)) is evidence


def test_the_twin_is_stable_too() -> None:
    """For rates all of stable's requests count, for latency the twin alone is compared."""
    arms = {"baseline": ArmCounts(90, 1), "twin": ArmCounts(5, 1), "candidate": ArmCounts(5)}
    stage = folded(empty(), [Window("r.1", 1, "w", 1, 500, 500, arms)]).stage(1)
    assert stage is not None
    assert (stage.stable.requests, stage.stable.failed) == (95, 2)
    assert stage.stable_count(lambda arm: arm.failed) == 2
    assert stage.compared == (0.5, stage.twin)


def test_latency_is_compared_only_under_equal_load() -> None:
    """With a twin, at one half, or where both see everything; nowhere else."""
    assert Stage(1, 500).compared is None
    assert Stage(1, 6500).compared is None
    assert Stage(1, 0, mirror=5000).compared is None
    assert Stage(1, 10_000).compared is None
    assert Stage(1, 5000).compared is not None
    assert Stage(1, 500, 500).compared is not None
    assert Stage(1, 1000, pair=True).compared is not None


def test_the_first_moments_of_a_host_are_left_out_on_both_arms_alike() -> None:
    """Latency of windows before the stage is warm does not count; requests and errors do."""
    arms = {name: ArmCounts(5, 1, latency={90: 4}) for name in ARMS}
    early, late = (Window("r.1", 2, "w", number, 5000, 0, arms) for number in (99, 100))
    stage = folded(empty(), [early, late]).stage(2)
    assert stage is not None
    assert stage.baseline.latency == stage.candidate.latency == {90: 4}
    assert (stage.candidate.requests, stage.candidate.errors) == (10, 2)


def test_the_reference_is_frozen_once_and_never_compared_with_itself() -> None:
    """What fixes where latency is compared is not counted a second time."""
    arms = {"twin": ArmCounts(latency={90: REFERENCE}), "candidate": ArmCounts(latency={95: 7})}
    window = Window("r.1", 1, "w", 1, 500, 500, arms)
    evidence = folded(msgspec.structs.replace(empty(), reference=None), [window])
    assert evidence.reference is not None
    assert evidence.reference.counts[90] == REFERENCE
    stage = evidence.stage(1)
    assert stage is not None
    assert (stage.twin.latency, stage.candidate.latency) == ({}, {})
    again = folded(evidence, [window])
    assert again.reference == evidence.reference
    stage = again.stage(1)
    assert stage is not None
    assert stage.candidate.latency == {95: 7}


def test_tripwires_see_a_minute() -> None:
    """Of the recent past a minute is kept, by windows' own numbers."""
    windows = [
        Window("r.1", 1, "w", number, 500, 0, {"candidate": ArmCounts(1, 1)})
        for number in range(1000)
    ]
    evidence = folded(empty(), windows)
    assert len(evidence.recent) == RECENT_BUCKETS
    assert sum(each.candidate for each in evidence.recent) == 300
    assert evidence.recent[-1].at == 999 // 25


def test_units_count_once_by_kind() -> None:
    """Keyed events count as requests, failures and invalid outputs of units."""
    events = [UnitEvent(1, 2, 0, 90, 3), UnitEvent(1, 2, 1), UnitEvent(2, 0, 0), UnitEvent(2, 0, 2)]
    stage = folded(empty(), [Window("r.1", 1, "w", 1, 500, 0, units=events)]).stage(1)
    assert stage is not None
    assert (stage.candidate.requests, stage.candidate.failed) == (1, 1)
    assert (stage.candidate.latency, stage.candidate.values) == ({90: 1}, {3: 1})
    assert (stage.baseline.requests, stage.baseline.invalid) == (1, 1)


@given(WINDOWS)
def test_evidence_survives_being_saved(windows: list[Window]) -> None:
    """Saved and loaded it is the same value."""
    evidence = folded(empty(), windows)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(evidence), type=Evidence) == evidence


def test_a_limit_holds_for_all_requests_of_few_users() -> None:
    """Units say little where users are few; what users got is counted beside them."""
    window = Window(
        "t", 1, "w", 5, 5_000, 0,
        units=[UnitEvent(1, 2, FIRST, 3), UnitEvent(1, 2, ERROR), UnitEvent(2, 0, FIRST, 3)],
        plain=[400, 1, 0, 0, 400, 80],
    )  # fmt: skip
    evidence = folded(opened(Evidence(), Stage(1, 5_000)), [window])
    (recent,) = evidence.recent
    assert (recent.candidate, recent.candidate_failed) == (400, 80)
    assert (recent.stable, recent.stable_failed) == (400, 1)
    assert evidence.stages[0].candidate.requests == 1
    spec = parse({"model": "m", "version": "v2", "strategy": "canary"})
    assert (
        "80 of the candidate's last 400 requests failed" in analyse(spec, evidence, {}, {}).tripped
    )
