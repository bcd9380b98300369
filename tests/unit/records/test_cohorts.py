"""Labels counted in cohorts of arrival: once, whenever they came, and never by what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hotswap.core import label_metrics
from hotswap.core.label_evidence import Labels
from hotswap.records import dataset, schema
from hotswap.records.cohorts import Cohort, count
from hotswap.records.files import LABELS
from hotswap.stats.differences import STEPS
from tests.unit.records.labelling import START, alone, counted, label, pairs, record, write


def test_a_pair_counts_for_whoever_was_right(tmp_path: Path) -> None:
    """Whichever of both answered."""
    swapped = {
        "version": "v2", "arm": "candidate", "other_version": "v1",
        "output_predict": 0, "other_output_predict": 1,
    }  # fmt: skip
    write(tmp_path, [record(0), record(1), record(2, **swapped), record(3)])
    label(tmp_path, ("r0", 1, 5), ("r1", 0, 5), ("r2", 1, 5))
    labels = counted(tmp_path, (0, 10))
    assert pairs(labels) == {STEPS: 2, -STEPS: 1}
    assert (labels.expected, labels.labelled) == (4, 3)
    assert labels.stages[1].expected == (3, 1)


def test_how_a_stretch_is_cut_changes_nothing(tmp_path: Path) -> None:
    """One cohort or many: the same counters, the same order for the ranking."""
    rng = np.random.default_rng(7)
    rows, given = [], []
    for number in range(400):
        score = float(rng.uniform(0.01, 0.99))
        other = float(np.clip(score + rng.normal(0, 0.2), 0.01, 0.99))
        rows.append(
            record(
                number,
                output_predict=int(score > 0.5), output_predict_proba=[1 - score, score],
                other_output_predict=int(other > 0.5), other_output_predict_proba=[1 - other, other],
            )
        )  # fmt: skip
        given.append((f"r{number}", int(rng.random() < score), number + 1.0))
    write(tmp_path, rows)
    label(tmp_path, *given)
    whole = counted(tmp_path, (0, 400))
    pieces = counted(tmp_path, *((at, at + 37.0) for at in range(0, 407, 37)))
    assert pieces.stages[1].pairs == whole.stages[1].pairs
    assert pieces.blocks == whole.blocks
    assert (pieces.scales, pieces.means) == (whole.scales, whole.means)
    assert whole.differences("brier")
    assert sum(whole.differences("absolute").values()) == 300  # the first 100 froze the scale


def test_a_label_counts_if_it_comes_in_time_and_the_last_such_counts(tmp_path: Path) -> None:
    """Early, late, changed, changed too late."""
    write(tmp_path, [record(number) for number in range(5)])
    label(
        tmp_path,
        ("r0", 1, -500),  # before the request
        ("r1", 1, 200),  # too late
        ("r2", 1, 5), ("r2", 0, 6),  # changed in time
        ("r3", 0, 5), ("r3", 1, 300),  # changed too late
        ("nobody", 1, 5),
    )  # fmt: skip
    labels = counted(tmp_path, (0, 10))
    assert pairs(labels) == {STEPS: 1, -STEPS: 2}
    assert labels.labelled == 3


def test_ids_that_several_requests_carry_are_counted_for_nobody(tmp_path: Path) -> None:
    """Whose label it is cannot be told."""
    write(tmp_path, [record(0), record(1, request_id="r0"), record(2)])
    label(tmp_path, ("r0", 1, 5), ("r2", 1, 5))
    labels = counted(tmp_path, (0, 10))
    assert pairs(labels) == {STEPS: 1}
    assert labels.ambiguous == 2


def test_a_candidate_without_an_answer_has_lost_everything(tmp_path: Path) -> None:
    """And stable alone without one, the contrary; both without, neither."""
    gone = {
        "other_output_predict": None,
        "other_output_predict_proba": None,
        "other_outcome": "error",
    }
    stable_gone = {
        "version": "v2", "arm": "candidate", "other_version": "v1", "output_predict": 0,
        "output_predict_proba": [0.7, 0.3], "other_outcome": "timeout",
        "other_output_predict": None, "other_output_predict_proba": None,
    }  # fmt: skip
    write(tmp_path, [record(0, **gone), record(1, **stable_gone)])
    label(tmp_path, ("r0", 0, 5), ("r1", 1, 5))
    labels = counted(tmp_path, (0, 10), keys=("accuracy", "log_loss"))
    assert pairs(labels) == {STEPS: 1, -STEPS: 1}
    assert labels.differences("log_loss") == {STEPS: 1, -STEPS: 1}


def test_where_one_version_is_asked_arms_are_compared(tmp_path: Path) -> None:
    """By assignment: what the candidate failed at is its loss, although stable answered well."""
    rows = [alone(number, False) for number in range(100)]  # they freeze what is bet around
    rows += [alone(100, False), alone(101, True, output_predict=0)]
    rows.append(
        record(102, arm="candidate", version="v1", fallback="error", outcome="error",
               other_outcome="error", other_output_predict=None)
    )  # fmt: skip
    write(tmp_path, rows)
    label(tmp_path, *((f"r{number}", 1, 200.0) for number in range(103)))
    labels = counted(tmp_path, (0, 200), maturity=1000.0, keys=("accuracy",), paired=())
    stage = labels.stages[1]
    assert labels.means == {"accuracy": 0.0}
    assert stage.stable == {"accuracy": {0: 1}}
    assert stage.candidate == {"accuracy": {STEPS: 2}}
    assert not stage.pairs


def test_a_request_of_many_rows_tossed_one_coin(tmp_path: Path) -> None:
    """Its loss is the mean of its rows'."""
    rows = [alone(number, False) for number in range(100)]
    rows += [alone(100, True, row=row, rows=4, output_predict=int(row > 0)) for row in range(4)]
    write(tmp_path, rows)
    label(tmp_path, *((f"r{number}", 1, 200.0) for number in range(100)))
    for row in range(4):
        columns = {"request_id": ["r100"], "row": [row], "label": [1.0], "label_text": [None],
                   "reward": [None], "received": [(START + 200) * 1_000_000]}  # fmt: skip
        table = pa.table(
            {field.name: pa.array(columns[field.name], field.type) for field in schema.labels()}
        )
        dataset.write_parquet(tmp_path, LABELS, table)
    labels = counted(tmp_path, (0, 200), maturity=1000.0, keys=("accuracy",), paired=())
    given = labels.stages[1].candidate["accuracy"]
    assert sum(at * rows for at, rows in given.items()) == pytest.approx(STEPS / 4, abs=2)
    assert sum(given.values()) == 1


def test_of_a_key_only_its_first_request_is_an_arms(tmp_path: Path) -> None:
    """All its requests go to one arm: they are one unit, over all stretches."""
    rows = [alone(number, False) for number in range(100)]
    rows += [alone(100 + number, True, key_hash=5) for number in range(3)]
    write(tmp_path, rows)
    label(tmp_path, *((f"r{number}", 1, 200.0) for number in range(103)))
    stretches = ((0.0, 101.0), (101.0, 102.0), (102.0, 200.0))
    labels = counted(tmp_path, *stretches, maturity=1000.0, keys=("accuracy",), paired=())
    assert sum(labels.stages[1].candidate["accuracy"].values()) == 1


def test_labels_that_no_probability_belongs_to_are_told(tmp_path: Path) -> None:
    """A text is right or wrong, and has no place among probabilities."""
    write(tmp_path, [record(0), record(1)])
    label(tmp_path, ("r0", "1", 5), ("r1", "benign", 5))
    labels = counted(tmp_path, (0, 10), keys=("accuracy", "log_loss"))
    assert pairs(labels) == {STEPS: 1, 0: 1}
    assert labels.unmatched >= 1


def test_positives_that_come_ten_times_later_decide_nothing_false(tmp_path: Path) -> None:
    """Equal versions, positives that are late or lost: no evidence, in pairs or arms."""
    rng = np.random.default_rng(3)
    rows, given = [], []
    for number in range(3000):
        truth = int(rng.random() < 0.3)
        said = [truth if rng.random() < 0.8 else 1 - truth for _ in range(2)]
        chances = [[1 - s * 0.6 - 0.2, s * 0.6 + 0.2] for s in said]
        rows.append(
            record(
                number,
                output_predict=said[0], output_predict_proba=chances[0],
                other_output_predict=said[1], other_output_predict_proba=chances[1],
            )
        )  # fmt: skip
        delay = rng.exponential(300.0 if truth else 30.0)
        given.append((f"r{number}", truth, number + delay))
    write(tmp_path, rows)
    label(tmp_path, *given)
    labels = counted(tmp_path, (0, 3000), maturity=120.0)
    assert 0.5 < labels.labelled / labels.expected < 0.95
    for metric in ("accuracy", "log_loss", "brier", "auc", "mae"):
        assert label_metrics.against(metric, labels) < np.log(20), metric


def test_rewards_are_judged_between_the_ends_of_the_first(tmp_path: Path) -> None:
    """Of the answer that was given; the first hundred say what is much and what is little."""
    rng = np.random.default_rng(5)
    rows = [alone(number, bool(number % 2)) for number in range(600)]
    write(tmp_path, rows)
    columns: dict[str, Any] = {
        "request_id": [f"r{number}" for number in range(600)],
        "row": [0] * 600, "label": [None] * 600, "label_text": [None] * 600,
        "reward": [float(rng.uniform(0, 10)) - 4 * (number % 2) for number in range(600)],
        "received": [(START + 700) * 1_000_000] * 600,
    }  # fmt: skip
    table = pa.table(
        {field.name: pa.array(columns[field.name], field.type) for field in schema.labels()}
    )
    dataset.write_parquet(tmp_path, LABELS, table)
    cohort = Cohort("t.1", "v2", START, START + 600, 1000.0, ("reward",), {1: 5000})
    with dataset.open(tmp_path, "m") as opened:
        labels = count(opened, cohort, Labels())
    assert labels.low < 0 < labels.high < 10.5
    stage = labels.stages[1]
    assert sum(stage.stable["reward"].values()) + sum(stage.candidate["reward"].values()) == 500
    assert label_metrics.against("reward", labels) > np.log(20)
