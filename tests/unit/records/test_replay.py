"""A version over recorded inputs: rebuilt as they were given, asked, and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hotswap.core.signature import Signature, TensorSpec
from hotswap.errors import BadInput, Conflict, InvalidOutput, NotFound
from hotswap.records import dataset, quality, replay, replay_store, schema
from hotswap.records.replay import Done, Planned
from hotswap.records.replay_inputs import Array, Kept

START = 1_700_000_000
PAIR = Signature((TensorSpec("x", "FP64", (-1, 2)),), (TensorSpec("predict", "INT64", (-1,)),))
NAMED = Signature(PAIR.inputs, PAIR.outputs, feature_names=("age", "size of it"))


def record(root: Path, columns: Mapping[str, Any], *, rows: int = 1, **more: Any) -> None:
    """One line a value, of requests of ``rows`` rows, a second apart; ``columns`` beside the fixed."""
    many = len(next(iter(columns.values())))
    values: dict[str, Any] = {
        "time": [(START + at // rows) * 1_000_000 for at in range(many)],
        "request_id": [f"r{at // rows}" for at in range(many)],
        "row": [at % rows for at in range(many)],
        "rows": [rows] * many,
        "version": ["v1"] * many,
        "outcome": ["ok"] * many,
        "latency_us": [1000] * many,
        "arm": ["baseline"] * many,
        "test": ["t.1"] * many,
        "other_version": ["v9"] * many,
    } | more
    made = {
        field.name: pa.array(values.get(field.name, [None] * many), field.type)
        for field in schema.fixed()
    }
    made |= {name: pa.array(each) for name, each in columns.items()}
    dataset.write_parquet(root, "m", pa.table(made))


class Ran:
    """What came of a replay of v2 of ``m``."""

    def __init__(
        self, root: Path, signature: Signature, predict: replay.Predict, **more: Any
    ) -> None:
        self.calls: list[dict[str, Array]] = []
        self.told: list[tuple[int, int]] = []
        self.folder = root / "replayed"
        version = more.pop("version", "v2")
        batch_rows = more.pop("batch_rows", replay.BATCH)
        finite = more.pop("finite", False)

        def asked(inputs: dict[str, Array], rows: int) -> Mapping[str, Array]:
            self.calls.append(inputs)
            return predict(inputs, rows)

        with dataset.open(root, "m") as opened:
            self.planned: Planned = replay.plan(
                opened, "m", signature, **({"max_rows": 1000} | more)
            )
            replay.take(opened, self.planned, root / "taken")
        self.done: Done = replay.run(
            replay.taken(root / "taken", batch_rows), self.planned, version, asked,
            lambda table: dataset.write_parquet(self.folder, "m", table),
            finite=finite, progress=lambda done, rows: self.told.append((done, rows)),
        )  # fmt: skip
        self.root = root

    def rows(self, what: str) -> list[Any]:
        """Of the replay's records, in order."""
        with dataset.open(self.folder, "m") as opened:
            return opened.sql.execute(
                f'SELECT {what} FROM records ORDER BY time, request_id, "row"'
            ).fetchall()

    def quality(self, **more: Any) -> Any:
        with dataset.open(self.folder, "m", labels_from=(self.root, None)) as opened:
            return quality.measure(opened, "m", versions=("v1", "v2"), stable="v1", **more)


def first_above(limit: float) -> Callable[[dict[str, Array], int], dict[str, Array]]:
    return lambda inputs, _: {"predict": (inputs["x"][:, 0] > limit).astype(np.int64)}


@pytest.mark.parametrize(
    ("signature", "names"), [(PAIR, ("x0", "x1")), (NAMED, ("age", "size of it"))]
)
def test_one_tensor_is_put_together_of_its_columns(
    tmp_path: Path, signature: Signature, names: tuple[str, str]
) -> None:
    """In the order of the signature, whatever the columns' is; NaN stays what it is."""
    record(
        tmp_path,
        {
            f"input_{names[1]}": [10.0, 20.0, float("nan")],
            f"input_{names[0]}": [1.0, 2.0, 3.0],
            "output_predict": [0, 1, 1],
        },
    )
    ran = Ran(tmp_path, signature, first_above(2.5))
    (call,) = ran.calls
    assert call["x"].dtype == np.float64
    np.testing.assert_array_equal(call["x"], [[1, 10], [2, 20], [3, np.nan]])
    assert ran.rows("version, output_predict, other_version, other_outcome, other_output_predict") == [
        ("v1", 0, "v2", "ok", 0), ("v1", 1, "v2", "ok", 0), ("v1", 1, "v2", "ok", 1),
    ]  # fmt: skip
    assert ran.rows("DISTINCT arm, test, stage, outcome") == [(None, None, None, "ok")]
    assert ran.done.errors == 0
    assert not ran.done.problems
    found = ran.quality()
    assert (found.stable, found.candidate) == ("v1", "v2")
    assert (found.agreement.n, found.agreement.same) == (3, 2)


def test_names_of_later_are_found_by_place(tmp_path: Path) -> None:
    """Recorded before the features had names."""
    record(tmp_path, {"input_x0": [1.0], "input_x1": [2.0], "output_predict": [0]})
    np.testing.assert_array_equal(Ran(tmp_path, NAMED, first_above(0)).calls[0]["x"], [[1, 2]])


def test_tables_and_texts_and_other_datatypes(tmp_path: Path) -> None:
    """Each column as the model takes it."""
    signature = Signature(
        (
            TensorSpec("name", "BYTES", (-1,)), TensorSpec("age", "INT64", (-1,)),
            TensorSpec("old", "BOOL", (-1,)), TensorSpec("half", "BF16", (-1,)),
            TensorSpec("one", "FP16", (-1, 1)),
        ),
        (TensorSpec("predict", "BYTES", (-1,)),), kind="table",
    )  # fmt: skip
    record(
        tmp_path,
        {
            "input_name": ["é", ""],
            "input_age": [1, 2],
            "input_old": [True, False],
            "input_half": np.array([1.5, -2.0], np.float32),
            "input_one": np.array([0.5, 4.0], np.float32),
            "output_predict": ["a", "b"],
        },
    )
    ran = Ran(tmp_path, signature, lambda inputs, _: {"predict": inputs["name"]})
    (call,) = ran.calls
    assert call["name"].tolist() == ["é".encode(), b""]
    assert call["age"].dtype == np.int64
    assert call["old"].tolist() == [True, False]
    assert call["half"].dtype == np.uint16
    assert call["half"].tolist() == [0x3FC0, 0xC000]
    assert call["one"].dtype == np.float16
    assert call["one"].tolist() == [[0.5], [4.0]]
    assert ran.rows("other_output_predict") == [("é",), ("",)]


def test_tensors_of_lists_and_of_unlike_lengths(tmp_path: Path) -> None:
    """Only rows of equal length are one batch."""
    signature = Signature(
        (TensorSpec("a", "FP32", (-1, 2, 2)), TensorSpec("b", "INT32", (-1, -1))),
        (TensorSpec("predict", "FP64", (-1, 2)),),
    )
    a = pa.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9], [1, 2]], pa.list_(pa.float32()))
    b = pa.array([[1], [2], [3, 4], [5]], pa.list_(pa.int32()))
    record(tmp_path, {"input_a": a, "input_b": b, "output_predict": [[0.0, 1.0]] * 4})
    ran = Ran(tmp_path, signature, lambda inputs, n: {"predict": np.tile([0.5, 0.25], (n, 1))})
    assert [call["b"].tolist() for call in ran.calls] == [[[1], [2]], [[3, 4]]]
    assert ran.calls[0]["a"].tolist()[1] == [[5, 6], [7, 8]]
    assert (ran.planned.rows, ran.planned.left_out) == (3, 1)
    assert ran.rows("other_output_predict") == [([0.5, 0.25],)] * 3


def test_the_newest_whole_requests_are_run_oldest_first(tmp_path: Path) -> None:
    """Never a part of one; in batches of at most the version's rows."""
    record(
        tmp_path,
        {"input_x0": np.arange(12.0), "input_x1": np.zeros(12), "output_predict": [0] * 12},
        rows=3,
    )
    ran = Ran(tmp_path, PAIR, first_above(0), max_rows=8, batch_rows=4)
    assert (ran.planned.rows, ran.planned.requests) == (6, 2)
    assert [call["x"][:, 0].tolist() for call in ran.calls] == [[6, 7, 8, 9], [10, 11]]
    assert ran.told[-1] == (6, 6)
    with pytest.raises(BadInput, match="more than 2 rows"):
        Ran(tmp_path, PAIR, first_above(0), max_rows=2)


def test_rows_that_raise_are_errors_and_others_are_answered(tmp_path: Path) -> None:
    """The batch is tried again row by row; what came of them is told by kind."""
    record(
        tmp_path,
        {
            "input_x0": np.arange(6.0),
            "input_x1": np.zeros(6),
            "output_predict": [0.0, 1, 2, 3, 4, 5],
        },
    )

    def predict(inputs: dict[str, Array], rows: int) -> dict[str, Array]:
        first = inputs["x"][:, 0]
        if (first == 1).any():
            raise ValueError("no ones")
        if (first == 2).any():
            return {"predict": np.zeros(rows + 1)}
        if (first == 3).any():
            raise SystemExit(3)
        if rows == 1 and first[0] == 4:
            return {"predict": np.zeros((1, 2))}
        return {"predict": first}

    ran = Ran(tmp_path, PAIR, predict)
    assert ran.rows("other_outcome, other_output_predict") == [
        ("ok", 0.0), ("error", None), ("invalid", None), ("error", None), ("invalid", None),
        ("ok", 5.0),
    ]  # fmt: skip
    assert ran.done.errors == 4
    assert "no ones (1 row)" in ran.done.problems
    assert any("has 2 rows for 1 rows of input" in each for each in ran.done.problems)
    assert len(ran.rows("other_latency_us")) == 6
    (side,) = [each for each in ran.quality().sides if each.version == "v2"]
    assert side.version == "v2"


def test_a_version_that_never_answers_is_a_result_too(tmp_path: Path) -> None:
    """Every row is lost."""
    record(tmp_path, {"input_x0": [1.0] * 3, "input_x1": [0.0] * 3, "output_predict": [1] * 3})

    def fails(inputs: dict[str, Array], rows: int) -> dict[str, Array]:
        raise RuntimeError("never")

    ran = Ran(tmp_path, PAIR, fails)
    assert ran.done == Done(3, ran.done.seconds, ("never (3 rows)",))
    assert ran.rows("other_outcome, other_output_predict") == [("error", None)] * 3
    assert ran.quality().agreement is None or ran.quality().agreement.n == 0


def test_nan_is_invalid_where_answers_must_be_finite(tmp_path: Path) -> None:
    """And else an answer like any."""
    record(tmp_path, {"input_x0": [1.0, 2.0], "input_x1": [0.0, 0.0], "output_predict": [1.0, 2.0]})

    def predict(inputs: dict[str, Array], rows: int) -> dict[str, Array]:
        return {"predict": np.where(inputs["x"][:, 0] > 1, np.nan, 1.0)}

    assert Ran(tmp_path, PAIR, predict).done.errors == 0
    (tmp_path / "again").mkdir()
    record(
        tmp_path / "again",
        {"input_x0": [1.0, 2.0], "input_x1": [0.0, 0.0], "output_predict": [1.0, 2.0]},
    )
    ran = Ran(tmp_path / "again", PAIR, predict, finite=True)
    assert ran.rows("other_outcome") == [("ok",), ("invalid",)]


def test_rows_without_all_inputs_are_left_out_and_counted(tmp_path: Path) -> None:
    """Where a share of the requests is recorded with inputs."""
    record(
        tmp_path,
        {"input_x0": [1.0, None, 3.0], "input_x1": [0.0, None, None], "output_predict": [1, 1, 1]},
    )
    ran = Ran(tmp_path, PAIR, first_above(0))
    assert (ran.planned.rows, ran.planned.left_out) == (1, 2)


def test_what_the_version_answered_itself_stands_beside_its_replay(tmp_path: Path) -> None:
    """By another name: a version is not paired with itself."""
    record(
        tmp_path, {"input_x0": [1.0] * 3, "input_x1": [0.0] * 3, "output_predict": [1] * 3},
        version=["v2", "v1", "v1"],
    )  # fmt: skip
    ran = Ran(tmp_path, PAIR, first_above(0))
    assert ran.planned.stable("v2") == "v1"
    assert [row[0] for row in ran.rows("other_version")] == ["v2 (replayed)", "v2", "v2"]


@pytest.mark.parametrize(
    ("columns", "kept", "said"),
    [
        ({}, Kept((),), "no inputs of it are recorded"),
        ({"input_x0": [1.0]}, Kept(), "input 'x1' is not recorded"),
        ({"input_x0": [1.0]}, Kept(("x0",)), "'x1' is not among those that are recorded"),
        ({"input_x0": [1.0]}, Kept(redacted=("x1",)), "input 'x1' is redacted"),
        (
            {"input_x0": [1.0], "input_x1": np.array([1], np.uint64)}, Kept(),
            "of input 'x1' a hash is recorded",
        ),
        (
            {"input_x0": [1.0], "input_x1": [1.0]}, Kept(hashed=("x",)),
            "of input 'x0' only a hash is recorded .*, of input 'x1'",
        ),
        ({"input_x0": [1.0], "input_x1": ["a"]}, Kept(), "recorded as VARCHAR, and the model takes"),
    ],
)  # fmt: skip
def test_inputs_that_are_not_there_are_named(
    tmp_path: Path, columns: dict[str, Any], kept: Kept, said: str
) -> None:
    """Nothing is made up for what was left out on purpose."""
    record(tmp_path, {**columns, "output_predict": [1]})
    with dataset.open(tmp_path, "m") as opened, pytest.raises(Conflict, match=said):
        replay.plan(opened, "m", PAIR, max_rows=10, kept=kept)


def test_nothing_recorded_and_no_such_column(tmp_path: Path) -> None:
    """Told before anything is run."""
    with (
        dataset.open(tmp_path, "m") as opened,
        pytest.raises(NotFound, match="nothing of model 'm'"),
    ):
        replay.plan(opened, "m", PAIR, max_rows=10)
    record(tmp_path, {"input_x0": [1.0], "input_x1": [None], "output_predict": [1]})
    with dataset.open(tmp_path, "m") as opened:
        with pytest.raises(BadInput, match="no input 'zip' is recorded; there are: x0, x1"):
            replay.plan(opened, "m", PAIR, max_rows=10, by="zip")
        unknown = Signature((), (), unvalidated=True)
        with pytest.raises(Conflict, match="nothing tells what it takes"):
            replay.plan(opened, "m", unknown, max_rows=10)


def test_labels_are_those_of_the_records(tmp_path: Path) -> None:
    """They lie where they always do, and judge the replayed version."""
    record(
        tmp_path,
        {"input_x0": np.arange(40.0) % 2, "input_x1": np.zeros(40), "output_predict": [1] * 40},
    )
    labels = pa.table(
        {
            "request_id": [f"r{at}" for at in range(40)],
            "row": pa.array([0] * 40, pa.int32()),
            "label": [float(at % 2) for at in range(40)],
            "label_text": pa.nulls(40, pa.string()),
            "reward": pa.nulls(40, pa.float64()),
            "received": pa.array([(START + 60) * 1_000_000] * 40, pa.timestamp("us", "UTC")),
        }
    ).cast(schema.labels())
    dataset.write_parquet(tmp_path, "/labels", labels)
    found = Ran(tmp_path, PAIR, first_above(0.5)).quality()
    values = {side.version: side.metrics["accuracy"] for side in found.sides}
    assert values == {"v1": 0.5, "v2": 1.0}


def test_the_last_five_replays_are_kept_and_none_longer_than_its_records(tmp_path: Path) -> None:
    """What was broken off is gone with the next."""
    broken = replay_store.begin(tmp_path, "m", "v2", START - 1)
    assert replay_store.replays(tmp_path, "m") == []
    for at in range(7):
        hidden = replay_store.begin(tmp_path, "m", "v2", START + at)
        assert not broken.exists()
        record(hidden, {"output_predict": [1]})
        replay_store.keep(tmp_path, "m", hidden)
    kept = replay_store.replays(tmp_path, "m")
    assert len(kept) == replay_store.LAST
    assert kept[-1].name == f"{(START + 6) * 1000:014d}-v2"
    back = replay_store.begin(tmp_path, "m", "v3", START)  # the clock was set back
    record(back, {"output_predict": [1]})
    assert replay_store.keep(tmp_path, "m", back) == replay_store.replays(tmp_path, "m")[-1]
    assert replay_store.expire(tmp_path, "2023-11-14") == 0
    assert replay_store.expire(tmp_path, "2023-11-15") == 5
    assert replay_store.replays(tmp_path, "m") == []


def test_an_answer_of_nothing_is_invalid(tmp_path: Path) -> None:
    """As it would be for a caller."""
    record(tmp_path, {"input_x0": [1.0], "input_x1": [0.0], "output_predict": [1]})
    ran = Ran(tmp_path, PAIR, lambda *_: {})
    assert ran.rows("other_outcome") == [("invalid",)]
    assert issubclass(InvalidOutput, Exception)
