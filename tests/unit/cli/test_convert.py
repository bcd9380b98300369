"""``hotswap models convert`` on real models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import Result

from tests.models import write_breast_cancer
from tests.unit.cli.conftest import Run


def _failed(result: Result) -> str:
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture(scope="module")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version folder with a joblib file."""
    folder = tmp_path_factory.mktemp("models") / "v1"
    write_breast_cancer(folder, "joblib")
    return folder


def test_a_joblib_file_becomes_skops(bare: Run, pickled: Path, tmp_path: Path) -> None:
    """A file that runs no code, which can be converted on; nothing is written beside the old."""
    before = sorted(pickled.iterdir())
    out = tmp_path / "model.skops"
    result = bare("models", "convert", str(pickled / "model.joblib"), str(out), "--trust-code")
    assert result.exit_code == 0, result.stderr
    assert f"wrote {out}" in result.stdout
    assert out.stat().st_size > 0
    assert sorted(pickled.iterdir()) == before
    again = bare("models", "convert", str(out), str(tmp_path / "model.onnx"))
    assert again.exit_code == 0, again.stderr


def test_onnx_comes_with_the_proof(bare: Run, pickled: Path, tmp_path: Path) -> None:
    """The report tells on how many rows both models agree, and how closely."""
    out = tmp_path / "model.onnx"
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([[float(i + j) for j in range(30)] for i in range(7)]))
    command = ("models", "convert", str(pickled), str(out), "--samples", str(rows), "--trust-code")
    answer = json.loads(bare(*command, "--json").stdout)
    assert answer["out"] == str(out)
    assert answer["parity"]["rows"] == 7
    assert answer["parity"]["worst_absolute"] < 1e-4
    again = bare(*command, "--force")
    assert "both models answer 7 rows alike" in again.stdout


def test_models_that_differ_are_not_written(bare: Run, pickled: Path, tmp_path: Path) -> None:
    """No tolerance: float32 is never quite float64, and no file is left."""
    out = tmp_path / "model.onnx"
    more = ("--trust-code", "--atol", "0", "--rtol", "0")
    line = _failed(bare("models", "convert", str(pickled), str(out), *more))
    assert "differs from the original" in line
    assert not out.exists()


def test_a_pickle_is_loaded_only_on_the_users_word(
    bare: Run, pickled: Path, tmp_path: Path
) -> None:
    """The refusal names the flag."""
    out = tmp_path / "model.skops"
    line = _failed(bare("models", "convert", str(pickled), str(out)))
    assert "--trust-code" in line
    assert not out.exists()


def test_a_tree_model_is_no_skops_file(bare: Run, tmp_path: Path) -> None:
    """skops holds scikit-learn's models alone."""
    write_breast_cancer(tmp_path / "v1", "xgb-ubj")
    line = _failed(bare("models", "convert", str(tmp_path / "v1"), str(tmp_path / "m.skops")))
    assert "skops holds scikit-learn models" in line


def test_bad_paths_are_named(bare: Run, pickled: Path, tmp_path: Path) -> None:
    """What is missing, exists already, or says no format."""
    there = tmp_path / "there.onnx"
    there.touch()
    for source, out, says in (
        (str(pickled), tmp_path / "m.pkl", "must end with .skops or .onnx"),
        (str(pickled), there, "exists already"),
        (str(pickled), tmp_path / "no" / "m.onnx", "there is no folder"),
        (str(tmp_path / "absent"), tmp_path / "m.onnx", "does not exist"),
    ):
        assert says in _failed(bare("models", "convert", source, str(out)))
