"""A model's report against scikit-learn's metrics, and what becomes of rows that lack something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from hotswap.core.quality_views import Difference, Quality, Side
from hotswap.errors import BadInput, NotFound
from tests.unit.records.judging import START, judge, label, records

N = 3000


def differences(quality: Quality) -> dict[str, Difference]:
    """By metric."""
    return {each.metric: each for each in quality.differences}


def sides(quality: Quality) -> tuple[Side, Side]:
    """Stable's and the candidate's."""
    stable, candidate = quality.sides
    return stable, candidate


def binary(seed: int, n: int = N) -> tuple[Any, Any, Any]:
    """Labels, and the probabilities of a good and of a worse model, with ties."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    good = np.clip(0.25 + 0.5 * y + rng.normal(0, 0.22, n), 0.02, 0.98).round(2)
    bad = np.clip(0.25 + 0.3 * y + rng.normal(0, 0.3, n), 0.02, 0.98).round(2)
    return y, good, bad


def outputs(score: Any, names: Any = (0, 1)) -> dict[str, Any]:
    """As a classifier answers."""
    return {
        "predict": [names[int(each)] for each in score >= 0.5],
        "predict_proba": np.stack([1 - score, score], axis=1),
    }


@pytest.mark.parametrize("names", [(0, 1), ("no", "yes"), (1, 2)])
def test_of_two_classes_as_scikit_learn_has_it(tmp_path: Path, names: Any) -> None:
    """All metrics of both versions, with ties among the scores, whatever the classes are called."""
    y, good, bad = binary(1)
    ids = records(tmp_path, outputs(good, names), outputs(bad, names))
    label(tmp_path, ids, [names[each] for each in y])
    quality = judge(tmp_path)
    assert (quality.task, quality.stable, quality.candidate) == ("binary", "v1", "v2")
    for side, score in zip(sides(quality), (good, bad), strict=True):
        said = (score >= 0.5).astype(int)
        expected = {
            "accuracy": sk.accuracy_score(y, said),
            "precision": sk.precision_score(y, said),
            "recall": sk.recall_score(y, said),
            "f1": sk.f1_score(y, said),
            "auc": sk.roc_auc_score(y, score),
            "log_loss": sk.log_loss(y, score),
            "brier": sk.brier_score_loss(y, score),
        }
        assert side.metrics == pytest.approx(expected)
        assert sum(each.n for each in side.calibration) == N
    for metric, each in differences(quality).items():
        true = sides(quality)[1].metrics[metric] - sides(quality)[0].metrics[metric]
        assert each.low < true < each.high
        assert each.better is False
    assert set(differences(quality)) == {"accuracy", "log_loss", "brier", "auc"}


@pytest.mark.parametrize("names", [("ant", "bee", "cat"), (0, 1, 2), (3, 5, 7)])
def test_of_three_classes_as_scikit_learn_has_it(tmp_path: Path, names: Any) -> None:
    """Precision, recall, F1 and AUC are plain means over the classes."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, N)
    chances = rng.dirichlet([1, 1, 1], N) + 0.8 * np.eye(3)[y]
    chances /= chances.sum(axis=1, keepdims=True)
    said = chances.argmax(axis=1)
    ids = records(tmp_path, {"predict": [names[each] for each in said], "predict_proba": chances})
    label(tmp_path, ids, [names[each] for each in y])
    quality = judge(tmp_path)
    assert (quality.task, quality.paired) == ("multiclass", False)
    floored = np.clip(chances, 0.01, 1.0)[np.arange(N), y]
    assert quality.sides[0].metrics == pytest.approx(
        {
            "accuracy": sk.accuracy_score(y, said),
            "precision": sk.precision_score(y, said, average="macro"),
            "recall": sk.recall_score(y, said, average="macro"),
            "f1": sk.f1_score(y, said, average="macro"),
            "auc": sk.roc_auc_score(y, chances, multi_class="ovr", average="macro"),
            "log_loss": float(-np.log(floored).mean()),
            "brier": 0.5 * ((chances - np.eye(3)[y]) ** 2).sum(axis=1).mean(),
        }
    )


def test_of_numbers_as_scikit_learn_has_it(tmp_path: Path) -> None:
    """MAE, RMSE and R² far from zero, with residuals."""
    rng = np.random.default_rng(5)
    y = 1e6 + 10 * rng.normal(size=N)
    good, bad = y + rng.normal(size=N), y + 3 * rng.normal(size=N)
    label(tmp_path, records(tmp_path, {"predict": good}, {"predict": bad}), y.tolist())
    quality = judge(tmp_path)
    assert quality.task == "regression"
    for side, said in zip(sides(quality), (good, bad), strict=True):
        expected = {
            "mae": sk.mean_absolute_error(y, said),
            "rmse": sk.root_mean_squared_error(y, said),
            "r2": sk.r2_score(y, said),
        }
        assert side.metrics == pytest.approx(expected, rel=1e-6)
        assert sum(each.n for each in side.residuals) == N
    assert {name: each.better for name, each in differences(quality).items()} == {
        "mae": False, "mse": False,
    }  # fmt: skip
    assert differences(quality)["mae"].n == N - 100


def test_whichever_answered(tmp_path: Path) -> None:
    """Pairs are turned to one side."""
    y, good, bad = binary(4)
    half = N // 2
    ids = records(tmp_path, outputs(good[:half]), outputs(bad[:half]))
    ids += records(
        tmp_path, outputs(bad[half:]), outputs(good[half:]), first=half, version=["v2"] * half,
        other_version=["v1"] * half,
    )  # fmt: skip
    label(tmp_path, ids, y.tolist())
    stable, candidate = sides(judge(tmp_path))
    assert stable.metrics["accuracy"] == pytest.approx(((good >= 0.5) == y).mean())
    assert candidate.metrics["accuracy"] == pytest.approx(((bad >= 0.5) == y).mean())


def test_a_candidate_without_an_output_has_lost_everything(tmp_path: Path) -> None:
    """Failures are pairs too: the difference is as if it had been wrong."""
    y, good, _ = binary(6)
    given, gone = outputs(good), np.arange(N) % 5 == 0
    other = {
        name: [None if lost else each for each, lost in zip(values, gone, strict=True)]
        for name, values in given.items()
    }
    label(tmp_path, records(tmp_path, given, other), y.tolist())
    quality = judge(tmp_path)
    stable, candidate = sides(quality)
    assert (stable.missing, candidate.missing) == (0, 600)
    assert candidate.metrics["accuracy"] == pytest.approx(
        ((np.array(given["predict"]) == y) & ~gone).mean()
    )
    assert candidate.metrics["auc"] < stable.metrics["auc"]
    assert {each.better for each in differences(quality).values()} == {False}


def test_failures_outside_of_pairs_are_no_comparison(tmp_path: Path) -> None:
    """In a canary the other version is recorded where it failed, and there alone."""
    y, good, _ = binary(7)
    more: dict[str, Any] = {"arm": ["candidate"] * N, "fallback": ["error"] * N}
    label(tmp_path, records(tmp_path, outputs(good), {"predict": [None] * N}, **more), y.tolist())
    quality = judge(tmp_path)
    assert (quality.paired, quality.differences) == (False, ())


def test_one_class_alone_has_no_auc(tmp_path: Path) -> None:
    """What cannot be told is absent, and nothing breaks."""
    _, good, bad = binary(8, 200)
    label(tmp_path, records(tmp_path, outputs(good), outputs(bad)), [0] * 200)
    quality = judge(tmp_path)
    assert "auc" not in sides(quality)[0].metrics
    assert "auc" not in differences(quality)


def test_numbers_that_are_none_count_as_missing(tmp_path: Path) -> None:
    """NaN from a model is no answer."""
    y = np.arange(400.0)
    said = y.copy()
    said[:100] = np.nan
    label(tmp_path, records(tmp_path, {"predict": said + 0.5}, {"predict": y + 0.5}), y.tolist())
    stable, candidate = sides(judge(tmp_path))
    assert (stable.missing, candidate.missing) == (100, 0)
    assert stable.metrics["mae"] == pytest.approx(0.5)


def test_rows_of_a_request_have_labels_of_their_own(tmp_path: Path) -> None:
    """Joined by request and row."""
    y = np.array([0, 1] * 300)
    ids = records(tmp_path, {"predict": y}, {"predict": 1 - y}, rows=2)
    label(tmp_path, ids, y.tolist(), [at % 2 for at in range(600)])
    quality = judge(tmp_path)
    assert [side.metrics["accuracy"] for side in sides(quality)] == [1.0, 0.0]
    assert quality.agreement is not None
    assert (quality.agreement.n, quality.agreement.same) == (600, 0)


@pytest.mark.parametrize("values", [[True, False] * 50, ["yes", "no"] * 50, [1.0, 0.0] * 50])
def test_classes_of_any_type_meet_their_labels(tmp_path: Path, values: list[Any]) -> None:
    """True is 1 in feedback, and numbers are numbers."""
    label(tmp_path, records(tmp_path, {"predict": values}), values)
    assert judge(tmp_path).sides[0].metrics["accuracy"] == 1.0


def test_ids_that_repeat_and_labels_for_nothing(tmp_path: Path) -> None:
    """Counted, and never joined."""
    ids = records(tmp_path, {"predict": [0, 1] * 50}, arm=["baseline"] * 60 + ["candidate"] * 40)
    records(tmp_path, {"predict": [1]})  # r0 once more
    label(tmp_path, [*ids[:50], "elsewhere"], [1] * 51)
    quality = judge(tmp_path)
    assert (quality.coverage.ambiguous, quality.coverage.unknown) == (2, 1)
    assert quality.sides[0].n == 49


def test_hashed_inputs_are_not_shown(tmp_path: Path) -> None:
    """Neither beside rows, nor to divide by."""
    y, good, bad = binary(12, 300)
    inputs = {"user": np.arange(300, dtype=np.uint64), "age": np.arange(300.0)}
    label(tmp_path, records(tmp_path, outputs(good), outputs(bad), inputs=inputs), y.tolist())
    quality = judge(tmp_path)
    assert {name for row in quality.apart for name in row.inputs} == {"age"}
    assert quality.apart[0].apart == pytest.approx(np.abs(good - bad).max())
    with pytest.raises(BadInput, match="hash"):
        judge(tmp_path, by="user")
    with pytest.raises(BadInput, match="age"):
        judge(tmp_path, by="zip")


@pytest.mark.parametrize(("column", "parts"), [("age", 4), ("city", 2), ("flag", 2)])
def test_segments_by_an_input(tmp_path: Path, column: str, parts: int) -> None:
    """Quarters of numbers, values of what has few."""
    y, good, bad = binary(11)
    inputs = {
        "age": (np.arange(N) % 100).astype(float),
        "city": [("a", "a", "b")[at % 3] for at in range(N)],
        "flag": [at % 4 == 0 for at in range(N)],
    }
    label(tmp_path, records(tmp_path, outputs(good), outputs(bad), inputs=inputs), y.tolist())
    found = judge(tmp_path, by=column).segments
    assert len(found) == parts
    assert sum(each.n for each in found) == N
    assert all(each.low is not None for each in found)


def test_a_damaged_file_is_named_and_the_rest_is_reported(tmp_path: Path) -> None:
    """What can be read is."""
    y, good, bad = binary(14, 400)
    label(tmp_path, records(tmp_path, outputs(good), outputs(bad)), y.tolist())
    records(tmp_path, outputs(good), outputs(bad), first=400)
    newest = max(tmp_path.glob("days/model=m/*/*.parquet"))
    newest.write_bytes(newest.read_bytes()[:-200])
    quality = judge(tmp_path)
    assert any(newest.name in each for each in quality.skipped)
    assert quality.sides[0].n == 400


def test_nothing_says_what_to_do(tmp_path: Path) -> None:
    """Without records; and without labels all that needs none is told."""
    with pytest.raises(NotFound, match="--records on"):
        judge(tmp_path)
    records(tmp_path, {"predict": [0, 1]}, {"predict": [0, 0]})
    quality = judge(tmp_path)
    assert quality.agreement is not None
    assert quality.agreement.same == 1
    with pytest.raises(BadInput, match="v1, v2"):
        judge(tmp_path, versions=("v1", "v9"))


def test_inputs_redacted_since_are_not_shown(tmp_path: Path) -> None:
    """Older records still have them; reports do not."""
    y, good, bad = binary(15, 300)
    inputs = {"name": [f"Secret {at}" for at in range(300)], "age": np.arange(300.0)}
    label(tmp_path, records(tmp_path, outputs(good), outputs(bad), inputs=inputs), y.tolist())
    quality = judge(tmp_path, hidden=("name",))
    assert {name for row in quality.apart for name in row.inputs} == {"age"}
    with pytest.raises(BadInput, match="redacted"):
        judge(tmp_path, by="name", hidden=("name",))
    with pytest.raises(BadInput) as refused:
        judge(tmp_path, by="zip", hidden=("name",))
    assert "name" not in str(refused.value)


def test_labels_that_are_expected(tmp_path: Path) -> None:
    """Of rows that are old enough."""
    ids = records(tmp_path, {"predict": [0, 1] * 50})
    label(tmp_path, ids[:30], [1] * 30)
    found = judge(tmp_path, mature_before=START + 40.0).coverage
    assert (found.rows, found.labelled) == (100, 30)
    assert (found.expected, found.expected_labelled) == (40, 30)
    assert judge(tmp_path).coverage.expected == 0


def test_a_failed_attempt_is_not_the_time_of_who_answered_instead(tmp_path: Path) -> None:
    """The candidate's timeout before it is not stable's latency."""
    records(tmp_path, {"predict": [0.5] * 10})
    late: dict[str, Any] = {"fallback": ["timeout"] * 10, "latency_us": [900_000] * 10}
    records(tmp_path, {"predict": [0.5] * 10}, first=10, arm=["candidate"] * 10, **late)
    found = judge(tmp_path).sides[0].latency
    assert found is not None
    assert (found.n, found.p99 < 100.0) == (10, True)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_none_are_no_difference(tmp_path: Path, odd: float) -> None:
    """Not of a prediction, nor of a label's side; the report can be told as JSON."""
    y = np.arange(300.0) + 0.5
    stable, candidate = y.copy(), y + 1.0
    stable[:3], candidate[2:5] = odd, -odd
    label(tmp_path, records(tmp_path, {"predict": stable}, {"predict": candidate}), y.tolist())
    quality = judge(tmp_path)
    assert msgspec.json.decode(msgspec.json.encode(quality), type=Quality).apart == quality.apart
    assert all(np.isfinite(each.apart) for each in quality.apart)
    if not np.isfinite(odd):
        assert {each.apart for each in quality.apart} == {1.0}
        assert quality.agreement is not None
        assert (quality.agreement.n, quality.agreement.same) == (295, 0)
        assert [side.missing for side in quality.sides] == [3, 3]


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_probabilities_that_are_none_are_no_difference(tmp_path: Path, odd: float) -> None:
    """And a class that is no number is no class."""
    y, good, bad = binary(16, 300)
    given, other = outputs(good), outputs(bad)
    given["predict_proba"][:3] = odd
    given["predict"] = [float("nan")] * 3 + [float(each) for each in given["predict"][3:]]
    other["predict"] = [float(each) for each in other["predict"]]
    label(tmp_path, records(tmp_path, given, other), y.tolist())
    quality = judge(tmp_path)
    assert msgspec.json.decode(msgspec.json.encode(quality), type=Quality).apart == quality.apart
    assert all(0.0 < each.apart <= 1.0 for each in quality.apart)
    assert quality.agreement is not None
    assert (quality.agreement.n, quality.agreement.classes) == (297, ("0", "1"))


def test_a_score_that_is_none_is_of_no_class(tmp_path: Path) -> None:
    """NaN is not above one half."""
    y, good, bad = binary(17, 300)
    good[:4] = np.nan
    label(tmp_path, records(tmp_path, {"predict": good}, {"predict": bad}), y.tolist())
    quality = judge(tmp_path)
    assert (quality.task, quality.sides[0].missing) == ("binary", 4)
    assert quality.agreement is not None
    assert quality.agreement.n == 296


@pytest.mark.parametrize("numbers", ["uint64", "int8", "str"])
def test_numbers_of_any_type_are_subtracted(tmp_path: Path, numbers: str) -> None:
    """Without a sign, of few bits, or written as text."""
    y = np.arange(100.0)
    said = [(y % 100).astype(numbers).tolist(), ((y + 27) % 127).astype(numbers).tolist()]
    kind = pa.string() if numbers == "str" else getattr(pa, numbers)()
    given, other = ({"predict": pa.array(each, kind)} for each in said)
    label(tmp_path, records(tmp_path, given, other), (y + 0.5).tolist())
    quality = judge(tmp_path)
    assert quality.task == "regression"
    assert quality.agreement is not None
    assert quality.agreement.apart["max"] == 27.0
    assert quality.apart[0].apart == 27.0


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e12])
def test_residuals_that_are_nearly_all_alike_are_one_bin(tmp_path: Path, scale: float) -> None:
    """What rounding leaves of a constant is not divided."""
    y = np.array([1.0, 2.0, 3.25, 10.0]) * scale + 0.5 * (scale > 1.0)
    said = y + 0.3 * scale
    label(tmp_path, records(tmp_path, {"predict": said}, {"predict": said * 1.0001}), y.tolist())
    for side in judge(tmp_path).sides:
        assert sum(each.n for each in side.residuals) == 4


@pytest.mark.parametrize("name", ["interval", "other"])
def test_a_list_of_numbers_is_no_list_of_probabilities(tmp_path: Path, name: str) -> None:
    """An interval beside a number, whatever its ends are."""
    y = np.random.default_rng(18).random(300)
    ends = np.stack([y - 0.2, y + 0.3], axis=1)
    given = {"predict": y + 0.1, name: ends}
    label(tmp_path, records(tmp_path, given, {"predict": y + 0.2, name: ends}), y.tolist())
    quality = judge(tmp_path)
    assert quality.task == "regression"
    assert [side.metrics["mae"] for side in quality.sides] == pytest.approx([0.1, 0.2])
    assert quality.apart[0].apart == pytest.approx(0.1)


def test_probabilities_of_any_name_are_known_by_their_sum(tmp_path: Path) -> None:
    """Where some are none, too; and beside a list that is something else."""
    y, good, bad = binary(19, 400)
    given, other = ({"embedding": np.tile([3.0, -1.0], (400, 1)),
                     "scores": outputs(each)["predict_proba"]} for each in (good, bad))  # fmt: skip
    given["scores"][0] = np.nan
    label(tmp_path, records(tmp_path, given, other), y.tolist())
    quality = judge(tmp_path)
    assert quality.task == "binary"
    assert "log_loss" in quality.sides[1].metrics


@pytest.mark.parametrize(("classes", "task"), [(2, "binary"), (3, "multiclass")])
def test_without_labels_classes_are_counted_by_the_probabilities(
    tmp_path: Path, classes: int, task: str
) -> None:
    """Of more than two the last has no part of its own in what differs."""
    chances = np.random.default_rng(20).dirichlet([1.0] * classes, (2, 50))
    given, other = (
        {"predict": each.argmax(axis=1).tolist(), "predict_proba": each} for each in chances
    )
    records(tmp_path, given, other)
    quality = judge(tmp_path)
    assert quality.task == task
    assert ({each.apart for each in quality.apart} == {1.0}) == (classes == 3)


@pytest.mark.parametrize("odd", ["n/a", "nan", "inf"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_label_that_is_no_number_is_left_out_of_numbers(
    tmp_path: Path, odd: str, whole: bool
) -> None:
    """One typing error is no reason to compare amounts as words; it is said."""
    y = np.arange(300) + (0 if whole else 0.5)
    ids = records(tmp_path, {"predict": y + 1}, {"predict": y + 2})
    label(tmp_path, ids, [odd, *y[1:].tolist()])
    quality = judge(tmp_path)
    assert quality.task == "regression"
    assert [(side.n, side.metrics["mae"]) for side in quality.sides] == [(299, 1.0), (299, 2.0)]
    assert quality.notes == (
        "1 label is a text where predictions are numbers: its row is left out.",
    )
    assert {each.metric for each in quality.differences} == {"mae", "mse"}


def test_scores_with_a_label_that_is_no_number(tmp_path: Path) -> None:
    """They are still cut at one half."""
    y, good, _ = binary(21, 300)
    label(tmp_path, records(tmp_path, {"predict": good}), ["?", "?", *y[2:].tolist()])
    quality = judge(tmp_path)
    assert quality.task == "binary"
    assert quality.sides[0].metrics["accuracy"] == pytest.approx(((good >= 0.5) == y)[2:].mean())
    assert "2 labels are texts where predictions are numbers: their rows are left out." in (
        quality.notes
    )


def test_classes_may_have_names_and_numbers(tmp_path: Path) -> None:
    """Where they are whole numbers a class without one may be meant; so where most are texts."""
    ids = records(tmp_path, {"predict": [0, 1, 2] * 50})
    label(tmp_path, ids, ["unknown", *[0.0, 1.0, 2.0] * 49, 1.0, 2.0])
    quality = judge(tmp_path)
    assert (quality.task, quality.sides[0].n) == ("multiclass", 150)
    assert quality.notes[-1].startswith("1 label is a text and the others numbers")


def test_rows_that_differ_most_show_no_label_that_may_be_anothers(tmp_path: Path) -> None:
    """Of an id that several requests carry."""
    ids = records(tmp_path, {"predict": [0, 0, 0]}, {"predict": [1, 1, 1]})
    records(tmp_path, {"predict": [1]}, {"predict": [1]}, first=5, request_id=["r1"])
    label(tmp_path, ids, [1, 1, 1])
    assert {each.request_id: each.label for each in judge(tmp_path).apart} == {
        "r0": 1.0, "r1": None, "r2": 1.0,
    }  # fmt: skip
