"""What labels count for must not depend on who was asked first, on one user, or on wild values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hotswap.app.job_records import CohortRequest, count_cohort
from hotswap.core import label_metrics
from hotswap.core.guards import Guardrail
from hotswap.core.label_evidence import Cohort, Labels
from hotswap.records import dataset, schema
from hotswap.records.compact import retire
from hotswap.records.files import LABELS, Location
from hotswap.stats.differences import STEPS
from tests.unit.records.labelling import START, alone, counted, label, pairs, record, write


def reward(root: Path, *given: tuple[str, float, float]) -> None:
    """(request, reward, seconds after START at which it came)."""
    columns: dict[str, Any] = {
        "request_id": [name for name, _, _ in given], "row": [0] * len(given),
        "label": [None] * len(given), "label_text": [None] * len(given),
        "reward": [value for _, value, _ in given],
        "received": [int((START + at) * 1e6) + order for order, (_, _, at) in enumerate(given)],
    }  # fmt: skip
    made = {field.name: pa.array(columns[field.name], field.type) for field in schema.labels()}
    dataset.write_parquet(root, LABELS, pa.table(made))


@pytest.mark.parametrize("key", ["log_loss", "brier", "auc", "accuracy"])
def test_what_neither_version_gives_proves_nothing(tmp_path: Path, key: str) -> None:
    """Ties would be proof of equality, and there is nothing to be equal in."""
    gone: dict[str, Any] = {
        "output_predict_proba": None, "other_output_predict_proba": None,
        "output_predict": None, "other_output_predict": None,
    }  # fmt: skip
    write(tmp_path, [record(number, **gone) for number in range(400)])
    label(tmp_path, *((f"r{number}", number % 2, 500.0) for number in range(400)))
    labels = counted(tmp_path, (0, 400), maturity=1000.0, keys=(key,))
    guardrail = Guardrail(key, max_increase=0.05)
    assert label_metrics.proof(key, labels, guardrail) == 0.0
    assert (labels.labelled, labels.unmatched) == (400, 400)


def test_a_score_is_not_wrong_where_classes_are_true(tmp_path: Path) -> None:
    """0.83 is no class: both versions would be wrong every time, and so equal."""
    dataset.write_parquet(tmp_path, "m", scores(300))
    label(tmp_path, *((f"r{number}", number % 2, 500.0) for number in range(300)))
    labels = counted(tmp_path, (0, 400), maturity=1000.0, keys=("accuracy",))
    assert pairs(labels) == {}
    assert labels.unmatched == 300


def scores(many: int) -> pa.Table:
    """Both versions answer with one number between 0 and 1."""
    rows = [record(number) for number in range(many)]
    fixed = schema.fixed()
    columns = {
        field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in fixed
    }
    values = pa.array(np.linspace(0.01, 0.99, many))
    return pa.table(columns | {"output_predict": values, "other_output_predict": values})


def test_versions_that_are_late_alike_are_judged_alike(tmp_path: Path) -> None:
    """Stable is still answered with when it is late; a copy that is late has no answer."""
    late_copy = {
        "other_outcome": "timeout",
        "other_output_predict": None,
        "other_output_predict_proba": None,
    }
    same = {"other_output_predict": 1, "other_output_predict_proba": [0.2, 0.8]}
    rows = []
    for number in range(200):
        if number % 20 == 0:
            rows.append(record(number, **late_copy))
        elif number % 20 == 10:
            rows.append(record(number, outcome="timeout", **same))
        else:
            rows.append(record(number, **same))
    rows.append(record(200, outcome="unavailable", **late_copy))  # both failed: a tie
    write(tmp_path, rows)
    label(tmp_path, *((f"r{number}", 1, 500.0) for number in range(201)))
    labels = counted(tmp_path, (0, 400), maturity=1000.0, keys=("accuracy", "brier", "auc"))
    assert pairs(labels) == {STEPS: 10, -STEPS: 10, 0: 181}
    assert labels.differences("brier")[STEPS] == labels.differences("brier")[-STEPS] == 10
    assert label_metrics.against("accuracy", labels) < 1.0


def test_what_was_answered_instead_is_stables_answer(tmp_path: Path) -> None:
    """The candidate failed; who answered for it did not."""
    instead = {
        "arm": "candidate", "outcome": "error", "fallback": "error", "other_outcome": "error",
        "other_output_predict": None, "other_output_predict_proba": None,
    }  # fmt: skip
    write(tmp_path, [record(0, **instead)])
    label(tmp_path, ("r0", 1, 5.0))
    assert pairs(counted(tmp_path, (0, 10), keys=("accuracy",))) == {STEPS: 1}


def test_one_user_is_one_coin_for_rewards_too(tmp_path: Path) -> None:
    """Also where both versions are asked: all of a key's requests are answered by one of them."""
    rows = [record(number) for number in range(100)]
    mine = {"version": "v2", "other_version": "v1", "arm": "candidate", "key_hash": 7}
    rows += [record(100 + number, **mine) for number in range(50)]
    rows += [record(200, arm="candidate", version="v2", other_version="v1", key_hash=8)]
    write(tmp_path, rows)
    reward(
        tmp_path,
        *((f"r{number}", number % 10, 500.0) for number in range(100)),
        *((f"r{number}", 0.0, 500.0) for number in (*range(100, 150), 200)),
    )
    stretches = ((0.0, 110.0), (110.0, 400.0))
    labels = counted(tmp_path, *stretches, maturity=1000.0, keys=("reward",))
    assert sum(labels.stages[1].candidate["reward"].values()) == 2
    assert labels.stages[1].expected[1] == 51  # both versions' answers to all of them are compared


def test_rows_that_are_expected_are_those_that_count(tmp_path: Path) -> None:
    """Of a key's requests the first: or most labels would seem to be missing."""
    write(tmp_path, [alone(number, False, key_hash=number // 10) for number in range(100)])
    label(tmp_path, *((f"r{number}", 1, 500.0) for number in range(100)))
    labels = counted(tmp_path, (0, 400), maturity=1000.0, keys=("accuracy",), paired=())
    assert (labels.expected, labels.labelled) == (10, 10)


@pytest.mark.parametrize("wild", [1e200, 1.7e308])
@pytest.mark.parametrize("at", [5, 250])
def test_one_wild_value_stops_nothing(tmp_path: Path, wild: float, at: int) -> None:
    """Of a label or an answer: the counters stay numbers, as they are stored."""
    write(tmp_path, [record(number) for number in range(300)])
    given = [wild if number == at else float(number % 7) for number in range(300)]
    label(tmp_path, *((f"r{number}", each, 500.0) for number, each in enumerate(given)))
    labels = counted(tmp_path, (0, 400), maturity=1000.0, keys=("absolute", "squared"))
    for key in ("absolute", "squared"):
        assert 190 <= sum(labels.differences(key).values()) <= 200
        assert 0.0 < labels.scales[key] < 1e10
        assert np.isfinite(labels.stages[1].sums[key]).all()


def test_an_id_that_comes_again_later_is_not_given_the_old_label(tmp_path: Path) -> None:
    """Whichever of them its label is for, while both wait for one; and only then."""
    rows = [record(0, request_id="c"), record(1, request_id="d"), record(20_000, request_id="d")]
    write(tmp_path, [*rows, record(500, request_id="c")])
    label(tmp_path, ("c", 1, 200.0), ("d", 1, 300.0), ("d", 0, 20_300.0))
    stretches = ((0.0, 100.0), (100.0, 1000.0), (1000.0, 30_000.0))
    labels = counted(tmp_path, *stretches, maturity=1000.0, keys=("accuracy",))
    assert labels.ambiguous == 2  # both of c's
    assert pairs(labels) == {STEPS: 1, -STEPS: 1}


def test_a_stretch_whose_records_had_to_go_is_told(tmp_path: Path) -> None:
    """Or nobody would know why labels decide nothing."""
    write(tmp_path, [record(0)])
    retire(Location(tmp_path), tmp_path, ["m"], "", 0)
    write(tmp_path, [record(1000)])
    label(tmp_path, ("r1000", 1, 1005.0))
    labels = Labels()
    for since, problem in ((0.0, True), (500.0, False)):
        cohort = Cohort("t.1", "v2", START + since, START + since + 900, 100.0, ("accuracy",),
                        {1: 1000}, (1,))  # fmt: skip
        labels = count_cohort(
            CohortRequest(1, str(tmp_path), None, "m", cohort, labels, START - 1.0)
        )
        assert ("records up to 2023-11-14 22:13:20 UTC" in labels.problem) is problem
    assert pairs(labels) == {STEPS: 1}


def test_an_id_that_comes_again_after_its_label_was_due_changes_nothing(tmp_path: Path) -> None:
    """The stretch may have been counted before; the later request is the one that cannot be told."""
    write(tmp_path, [record(0, request_id="c")])
    label(tmp_path, ("c", 1, 5.0))
    before = counted(tmp_path, (0.0, 100.0), maturity=1000.0, keys=("accuracy",))
    write(tmp_path, [record(2800, request_id="c")])
    stretches = ((0.0, 100.0), (100.0, 3000.0))
    after = counted(tmp_path, *stretches, maturity=1000.0, keys=("accuracy",))
    assert pairs(before) == pairs(after) == {STEPS: 1}
    assert (before.ambiguous, after.ambiguous) == (0, 1)


def test_a_label_that_becomes_a_number_replaces_the_text(tmp_path: Path) -> None:
    """And the other way round: the newest of both counts."""
    write(tmp_path, [record(0), record(1)])
    label(tmp_path, ("r0", 0, 5), ("r0", "1", 6), ("r1", "1", 5), ("r1", 0, 6))
    assert pairs(counted(tmp_path, (0, 10), keys=("accuracy",))) == {STEPS: 1, -STEPS: 1}


def test_a_ratio_is_proved_where_one_version_is_asked(tmp_path: Path) -> None:
    """Both arms' losses in a unit in which stable's may be so many times as large."""
    rng = np.random.default_rng(11)
    rows, given = [], []
    for number in range(4000):
        rows.append(alone(number, bool(rng.random() < 0.5), output_predict=0))
        given.append((f"r{number}", float(abs(rng.normal(1.0, 0.1))), 5000.0))
    write(tmp_path, rows)
    label(tmp_path, *given)
    keys = label_metrics.needed(
        [Guardrail("mae", max_ratio=1.2), Guardrail("rmse", max_ratio=1.1)], ()
    )
    labels = counted(tmp_path, (0, 5000), maturity=9000.0, keys=keys, paired=())
    for metric, ratio in (("mae", 1.2), ("rmse", 1.1)):
        found = label_metrics.proof(metric, labels, Guardrail(metric, max_ratio=ratio))
        assert found > np.log(20), metric
    assert label_metrics.against("mae", labels) < np.log(20)
    worse = counted(
        tmp_path, (0, 5000), maturity=9000.0, keys=("absolute", "absolute*0.9"), paired=()
    )
    assert label_metrics.better("mae", worse, 0.1) < 0.0
