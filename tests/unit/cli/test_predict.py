"""``hotswap predict``: rows in many forms, answers as a table or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hotswap.cli.client import CommandFailed, data_url
from hotswap.cli.rows import read_body
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.views import ModelView
from hotswap.testing.fake_control import FakeControl
from tests.unit.cli.conftest import DataPlane, Run

SINGLE = {
    "prediction": 1,
    "probabilities": [0.25, 0.75],
    "model": "fraud",
    "version": "v2",
    "request_id": "r1",
}


@pytest.mark.parametrize(
    ("content", "name", "body"),
    [
        (b"[[1, 2], [3, 4]]", "r.json", {"features": [[1, 2], [3, 4]]}),
        (b"[1, 2]", "stdin", {"features": [1, 2]}),
        (b'[{"a": 1}]', "stdin", {"features": [{"a": 1}]}),
        (b'{"a": 1}', "r.json", {"features": {"a": 1}}),
        (b'{"features": [1], "request_id": "x"}', "r", {"features": [1], "request_id": "x"}),
        (b"\xef\xbb\xbf[1]", "r.json", {"features": [1]}),
        (b"1,2\n3,4.5\n", "r.csv", {"features": [[1, 2], [3, 4.5]]}),
        (b"1,2\r\n\r\n3,\r\n", "stdin", {"features": [[1, 2], [3, None]]}),
        (b"a,b\n1,x\n", "r.csv", {"features": [{"a": 1, "b": "x"}]}),
        (b'a,"b, c"\nnan,1e3\n', "r.csv", {"features": [{"a": None, "b, c": 1000.0}]}),
        (b"x,x\ny,z\n", "r.csv", {"features": [["x", "x"], ["y", "z"]]}),
        (b"1,1_0\n", "r.csv", {"features": [[1, "1_0"]]}),
    ],
)
def test_rows_are_read(content: bytes, name: str, body: dict[str, Any]) -> None:
    """JSON rows, a /predict body, CSV with and without names."""
    assert read_body(content, name) == body


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"", "r.json", "r.json is empty"),
        (b"\n \n", "r.csv", "r.csv is empty"),
        (b"\xff\xfe", "r.csv", "is not UTF-8"),
        (b"{", "r.json", "is not valid JSON"),
        (b"[" * 100_000, "r.json", "is not valid JSON"),
        (b"3", "r.json", "must hold a list of rows"),
        (b"[]", "stdin", "must hold a list of rows"),
        (b"1,2\n3\n", "r.csv", "row 2 of r.csv has 1 values, but the first row 2"),
        (b"a,b\n", "r.csv", "a line of names but no rows"),
        (b'"a\n', "r.csv", "is not valid CSV"),
        (b"1,inf\n", "r.csv", "'inf' is infinite"),
    ],
)
def test_what_is_no_rows_is_refused(content: bytes, name: str, says: str) -> None:
    """The sentence names the file and what is wrong."""
    with pytest.raises(CommandFailed) as caught:
        read_body(content, name)
    assert says in str(caught.value)


def test_a_prediction_goes_to_the_data_plane_that_the_server_names(
    run: Run, data: DataPlane, tmp_path: Path
) -> None:
    """The address comes from /api/v1/info; the answer is a table."""
    data.answer = SINGLE
    rows = tmp_path / "rows.json"
    rows.write_text("[5.1, 3.5]")
    result = run("predict", "fraud", "--data", str(rows), "--version", "v2")
    assert result.exit_code == 0, result.stderr
    assert data.bodies == [{"features": [5.1, 3.5], "model": "fraud", "version": "v2"}]
    for text in ("Prediction", "0.25 0.75", "fraud/v2", "r1"):
        assert text in result.stdout


def test_rows_come_from_stdin_and_answers_go_to_stdout_as_json(run: Run, data: DataPlane) -> None:
    """A filter between programs."""
    data.answer = {"predictions": [0, 1], "model": "fraud", "version": "v1", "request_id": "r"}
    result = run("predict", "fraud", "--data", "-", "--json", input="1,2\n3,4\n")
    assert json.loads(result.stdout) == data.answer
    assert data.bodies[0]["features"] == [[1, 2], [3, 4]]


def test_many_predictions_are_cut_with_a_word(run: Run, data: DataPlane) -> None:
    """A table of fifty rows, and how to see all."""
    answers = {"predictions": list(range(60)), "model": "m", "version": "v", "request_id": "r"}
    data.answer = answers
    result = run("predict", "m", "--data", "-", input="[[1]]")
    assert "… and 10 more; --json prints all" in result.stdout


def test_the_address_and_the_token_can_be_given(bare: Run, data: DataPlane, control: Any) -> None:
    """--data-url asks no control API; the token goes to the data plane too."""
    data.answer = SINGLE
    address = control.details["data"]
    more = ("--data-url", address, "--url", "http://127.0.0.1:9", "--token", "t0k3n")
    result = bare("predict", "fraud", "--data", "-", *more, input="[1]")
    assert result.exit_code == 0, result.stderr
    assert data.tokens == ["Bearer t0k3n"]


def test_the_data_planes_error_is_the_error(run: Run, data: DataPlane) -> None:
    """Its sentence, on one line."""
    data.answer, data.status = {"error": "the model takes 30 features\nnot 1"}, 400
    result = run("predict", "fraud", "--data", "-", input="[1]")
    assert result.exit_code == 1
    assert result.stderr == "error: the model takes 30 features not 1\n"


X = TensorSpec("x", "FP64", (-1, 2))
NAMELESS = Signature((X,), ())


def _know(control: FakeControl, signature: Signature | None) -> None:
    control.table["fraud"] = ModelView("fraud", "v1", None, 1, signature, ())


def test_a_line_of_names_is_left_out_where_columns_have_none(
    run: Run, data: DataPlane, control: FakeControl
) -> None:
    """A model with one tensor and no feature names takes the CSV's columns in their order."""
    data.answer, data.refuse_names = SINGLE, True
    _know(control, NAMELESS)
    result = run("predict", "fraud", "--data", "-", "--version", "v1", input="a,b\n1,2\n3,4\n")
    assert result.exit_code == 0, result.stderr
    assert data.bodies == [
        {"features": [{"a": 1, "b": 2}, {"a": 3, "b": 4}], "model": "fraud", "version": "v1"},
        {"features": [[1, 2], [3, 4]], "model": "fraud", "version": "v1"},
    ]


@pytest.mark.parametrize(
    ("signature", "rows"),
    [
        (Signature((X,), (), feature_names=("c", "d")), "a,b\n1,2\n"),
        (Signature((X, TensorSpec("y", "FP64", (-1,))), ()), "a,b\n1,2\n"),
        (Signature((TensorSpec("c", "FP64", (-1,)),), (), kind="table"), "a\n1\n"),
        (NAMELESS, "x\n1\n"),
        (NAMELESS, '[{"a": 1, "b": 2}]'),
        (None, "a,b\n1,2\n"),
    ],
)
def test_names_that_are_wrong_are_refused(
    run: Run, data: DataPlane, control: FakeControl, signature: Signature | None, rows: str
) -> None:
    """Where columns have names, or the rows are JSON, the server's sentence is the error."""
    data.refuse_names = True
    _know(control, signature)
    result = run("predict", "fraud", "--data", "-", input=rows)
    assert result.stderr == "error: Missing: 'x'.\n"
    assert len(data.bodies) == 1


def test_names_are_kept_where_control_does_not_answer(
    bare: Run, data: DataPlane, control: FakeControl
) -> None:
    """Nobody says what the model takes: the first answer stands."""
    data.refuse_names = True
    more = ("--data-url", control.details["data"], "--url", "http://127.0.0.1:9")
    result = bare("predict", "fraud", "--data", "-", *more, input="a,b\n1,2\n")
    assert result.stderr == "error: Missing: 'x'.\n"


def test_an_absent_file_is_named(run: Run) -> None:
    """Before anything is sent."""
    result = run("predict", "fraud", "--data", "/absent.json")
    assert result.stderr == "error: /absent.json cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("data", "control", "seen"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8081", "http://127.0.0.1:8080"),
        ("http://0.0.0.0:8080", "http://box:8081", "http://box:8080"),
        ("http://[::]:8080", "http://[fe80::1]:8081", "http://[fe80::1]:8080"),
        ("127.0.0.1:8080", "http://x", "http://127.0.0.1:8080"),
    ],
)
def test_a_server_on_every_address_is_reached_where_its_control_is(
    data: str, control: str, seen: str
) -> None:
    """0.0.0.0 is no address to connect to from elsewhere."""
    assert data_url({"data": data}, control) == seen
