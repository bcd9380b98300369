"""What labels say of a candidate: losses needed, evidence both ways, what is shown, what rolls back."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from hotswap.core import label_metrics, measures
from hotswap.core.analysis import analyse
from hotswap.core.evidence import Evidence, Stage
from hotswap.core.guards import Guardrail, Objective, parse_guardrails, parse_objectives
from hotswap.core.label_evidence import Labels, LabelStage, blocks_of, flat
from hotswap.core.label_view import coverage, shown
from hotswap.core.metric_names import LABELLED
from hotswap.core.strategy import RolloutSpec, parse
from hotswap.core.windows import PairCounts
from hotswap.stats import auc
from hotswap.stats.differences import STEPS

ENOUGH = math.log(20)


def paired(worse: int, better: int, ties: int, **more: Any) -> Labels:
    """Labels of pairs in one stage."""
    counts = {STEPS: worse, -STEPS: better, 0: ties}
    stage = LabelStage(1, 1000, pairs={"accuracy": counts}, **more)
    return Labels(until=1.0, stages={1: stage})


def arms(wrong: tuple[int, int], right: tuple[int, int], weight: int = 5000) -> Labels:
    """Labels of requests that one version alone was asked: (stable, candidate)."""
    sides = [{STEPS: w, 0: r} for w, r in zip(wrong, right, strict=True)]
    stage = LabelStage(1, weight, stable={"accuracy": sides[0]}, candidate={"accuracy": sides[1]})
    return Labels(until=1.0, stages={1: stage}, means={"accuracy": 0.1})


@pytest.mark.parametrize(
    ("guardrails", "objectives", "target", "expected"),
    [
        ([], [], "", ()),
        ([Guardrail("error_rate")], [], "latency", ()),
        ([Guardrail("accuracy"), Guardrail("auc")], [], "", ("accuracy", "auc")),
        ([Guardrail("mae", max_ratio=1.05)], [], "", ("absolute", "absolute*1.05")),
        ([Guardrail("rmse", max_ratio=1.1)], [], "", ("squared", "squared*1.21")),
        ([], [Objective("mae", 0.1)], "", ("absolute", "absolute*0.9")),
        ([], [Objective("accuracy", 0.1)], "reward", ("accuracy", "reward")),
    ],
)
def test_only_the_losses_that_decide_are_counted(
    guardrails: list[Guardrail], objectives: list[Objective], target: str, expected: tuple[str, ...]
) -> None:
    """A rollout without a metric of labels needs none."""
    assert label_metrics.needed(guardrails, objectives, target) == expected


@pytest.mark.parametrize("metric", LABELLED)
def test_without_labels_there_is_no_evidence_either_way(metric: str) -> None:
    """Nothing seen is nothing shown, for each metric."""
    guardrail = Guardrail(metric, max_increase=0.01)
    assert label_metrics.against(metric, Labels()) == 0.0
    assert label_metrics.proof(metric, Labels(), guardrail) == 0.0
    assert label_metrics.better(metric, Labels(), 0.0) == 0.0


def test_pairs_that_the_candidate_loses_roll_back_and_ties_prove() -> None:
    """60 to 20 is evidence; 4,000 ties are a proof of less than a point."""
    guardrail = Guardrail("accuracy", max_increase=0.01)
    assert label_metrics.against("accuracy", paired(60, 20, 1000)) > ENOUGH
    assert label_metrics.proof("accuracy", paired(0, 0, 4000), guardrail) > ENOUGH
    assert label_metrics.against("accuracy", paired(0, 0, 4000)) == pytest.approx(0.0, abs=1e-9)
    assert label_metrics.better("accuracy", paired(20, 90, 1000), 0.0) > ENOUGH


def test_arms_that_differ_roll_back_and_stages_without_a_coin_say_nothing() -> None:
    """The same counts at weight 0 or all are no comparison."""
    lost = arms((100, 400), (900, 600))
    assert label_metrics.against("accuracy", lost) > ENOUGH
    for weight in (0, 10_000):
        assert label_metrics.against("accuracy", arms((100, 400), (900, 600), weight)) == 0.0


def test_margins_are_in_the_metrics_unit() -> None:
    """A margin of nats, or of a label's own unit, is turned into shares of the scale."""
    assert label_metrics.unit("log_loss", Labels()) == pytest.approx(math.log(100))
    assert label_metrics.unit("mae", Labels()) is None
    assert label_metrics.unit("mae", Labels(scales={"absolute": 7.0})) == 7.0
    assert label_metrics.unit("reward", Labels(low=1.0, high=3.0)) == 2.0
    stage = LabelStage(1, 1000, pairs={"absolute": {0: 5000}})
    labels = Labels(stages={1: stage}, scales={"absolute": 10.0})
    assert label_metrics.proof("mae", labels, Guardrail("mae", max_increase=0.1)) > ENOUGH
    assert label_metrics.proof("mae", labels, Guardrail("mae", max_increase=0.001)) < ENOUGH


def test_what_is_shown_is_in_the_metrics_unit_too() -> None:
    """Accuracy of both, and how much is lost, within bounds."""
    labels = paired(60, 20, 920, sums={"accuracy": (80.0, 120.0, 1000)})
    found, estimate, interval, n, how = shown(
        labels, "accuracy", Guardrail("accuracy", max_increase=0.01), ("v1", "v2"), 0.05
    )
    assert (found["stable"].value, found["candidate"].value, n) == (0.92, 0.88, 1000)
    assert estimate == pytest.approx(0.04)
    assert interval is not None
    assert interval[0] < 0.04 < interval[1]
    assert how == "difference"


def test_the_ranking_comes_back_from_the_store_as_it_was() -> None:
    """Numbers as keys, tuples and open blocks survive JSON and msgpack."""
    rows = [(True, 0.9, 0.2), (False, 0.1, 0.3), (False, 0.2, None)] * 40 + [(True, 0.5, 0.5)]
    blocks = auc.feed(auc.Blocks(), rows)
    labels = Labels(blocks=flat(blocks))
    for codec in (msgspec.json, msgspec.msgpack):
        again = codec.decode(codec.encode(labels), type=Labels)
        assert again.ranking() == blocks
    assert blocks_of(()) == auc.Blocks()


def test_labels_that_come_after_the_promotion_can_still_say_no() -> None:
    """`Analysis.late` looks at metrics of labels alone."""
    spec = _spec([{"metric": "accuracy"}, {"metric": "error_rate"}])
    evidence = Evidence(
        stages=(Stage(1, 1000, pair=True, pairs=PairCounts(total=500, both=500)),),
        labels=paired(90, 10, 1000),
    )
    found = analyse(spec, evidence, {}, {})
    assert found.late
    assert found.failed == "accuracy"
    assert not analyse(spec, msgspec.structs.replace(evidence, labels=Labels()), {}, {}).late


def test_what_is_not_required_is_not_missing() -> None:
    """A guardrail that only rolls back keeps no promotion waiting."""
    evidence = Evidence(stages=(Stage(1, 1000, pair=True, pairs=PairCounts(total=50, both=50)),))
    for required in (True, False):
        spec = _spec([{"metric": "accuracy", "required": required}, {"metric": "error_rate"}])
        missing = analyse(spec, evidence, {}, {}).missing
        assert ("accuracy" in missing) == required
        assert "error_rate" in missing


def test_objectives_and_guardrails_of_labels_are_read() -> None:
    """With their own margins where none is given."""
    (guardrail,) = parse_guardrails([{"metric": "mae"}])
    assert guardrail.max_ratio == 1.05
    assert parse_guardrails([{"metric": "accuracy"}])[0].max_increase == 0.01
    assert parse_objectives([{"metric": "auc", "min_improvement": 0.02}])[0].min_improvement == 0.02
    assert measures.better("auc", Evidence(), 0.02) == 0.0


def test_how_many_labels_are_in_is_said() -> None:
    """Also that none is due, and why none can be counted."""
    assert "1 h old yet" in coverage(Labels(), 3600.0)
    stage = LabelStage(1, 1000, expected=(90, 10), labelled=(40, 10))
    assert coverage(Labels(stages={1: stage}), 1.0) == "50 of 100 rows have their label (50 %)"
    assert "cannot be counted: no" in coverage(Labels(problem="no disk"), 1.0)


def _spec(guardrails: list[dict[str, Any]]) -> RolloutSpec:
    body = {"model": "m", "version": "v2", "strategy": "champion_challenger"}
    return parse(body | {"guardrails": guardrails})
