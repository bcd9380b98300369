"""Samples in every form that is accepted, and rows made up from a signature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import VersionSettings
from hotswap.errors import LoadError
from hotswap.runtimes.samples import generated_samples, load_samples

MATRIX = Signature((TensorSpec("x", "FP32", (-1, 2)),), (), feature_names=("a", "b"))
TABLE = Signature(
    (TensorSpec("a", "FP64", (-1,)), TensorSpec("t", "BYTES", (-1,))), (), kind="table"
)


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 2], [3, 4]],
        [{"a": 1, "b": 2}, {"b": 4, "a": 3}],
        {"inputs": {"x": [[1, 2], [3, 4]]}},
        {"inputs": {"any": [[1, 2], [3, 4]]}},
    ],
)
def test_json_forms_of_a_matrix(rows: Any, tmp_path: Path) -> None:
    """Rows, named rows and named inputs are the same samples, in the signature's datatype."""
    (tmp_path / "s.json").write_text(json.dumps(rows))
    found = load_samples(tmp_path, VersionSettings(samples="s.json"), MATRIX)
    assert found is not None
    assert found["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert found["x"].dtype == np.float32


@pytest.mark.parametrize(
    "rows",
    [
        [[1.5, "Ulm"], [None, "Rom"]],
        [{"a": 1.5, "t": "Ulm"}, {"a": None, "t": "Rom"}],
        {"inputs": {"t": ["Ulm", "Rom"], "a": [1.5, None]}},
    ],
)
def test_json_forms_of_a_table(rows: Any) -> None:
    """Columns are taken by place or by name; null is NaN, text is bytes."""
    settings = VersionSettings(samples=rows if isinstance(rows, list) else None)
    if isinstance(rows, dict):
        settings = VersionSettings(
            samples=[
                dict(zip("at", row, strict=True))
                for row in zip(rows["inputs"]["a"], rows["inputs"]["t"], strict=True)
            ]
        )
    found = load_samples(Path("/"), settings, TABLE)
    assert found is not None
    assert found["t"].tolist() == [b"Ulm", b"Rom"]
    assert found["a"][0] == 1.5
    assert np.isnan(found["a"][1])


def test_csv_with_and_without_a_header(tmp_path: Path) -> None:
    """A first line of words names the columns; an empty cell is NaN."""
    (tmp_path / "h.csv").write_text("t,a\nUlm,1\nRom,\n")
    found = load_samples(tmp_path, VersionSettings(samples="h.csv"), TABLE)
    assert found is not None
    assert found["t"].tolist() == [b"Ulm", b"Rom"]
    assert np.isnan(found["a"][1])
    (tmp_path / "p.csv").write_text("1,2\n3,4\n")
    found = load_samples(tmp_path, VersionSettings(samples="p.csv"), MATRIX)
    assert found is not None
    assert found["x"].tolist() == [[1, 2], [3, 4]]


def test_numpy_files(tmp_path: Path) -> None:
    """One array, or several by name; without a signature they tell it."""
    np.save(tmp_path / "s.npy", np.ones((3, 2), np.float16))
    found = load_samples(tmp_path, VersionSettings(samples="s.npy"), None)
    assert found is not None
    assert found["input"].dtype == np.float16
    np.savez(tmp_path / "s.npz", a=np.array([1.0]), t=np.array(["Ulm"]))
    found = load_samples(tmp_path, VersionSettings(samples="s.npz"), TABLE)
    assert found is not None
    assert found["t"].tolist() == [b"Ulm"]


def test_none_are_set() -> None:
    """No samples in the settings are no samples."""
    assert load_samples(Path("/"), VersionSettings(), MATRIX) is None


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("gone.json", None, "is not there"),
        ("s.txt", "1", "must end in"),
        ("../s.json", "[[1, 2]]", "must lie in the version's folder"),
        ("s.json", "[[1, 2]", "cannot be read"),
        ("s.json", "[[1, 2, 3]]", r"must have the shape \[-1, 2\], not \[1, 3\]"),
        ("s.json", "[]", "cannot be given|at least one row"),
        ("s.json", '{"rows": []}', "must have the form"),
        ("s.json", '[["a", "b"]]', "cannot be given"),
        ("s.npy", "no array", "cannot be read"),
    ],
)
def test_bad_samples(name: str, content: str | None, error: str, tmp_path: Path) -> None:
    """Each mistake is told in a sentence without the path."""
    folder = tmp_path / "v1"
    folder.mkdir()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(LoadError, match=error) as raised:
        load_samples(folder, VersionSettings(samples=name), MATRIX)
    assert str(tmp_path) not in str(raised.value)


def test_a_pickle_in_an_npy_is_not_unpickled(tmp_path: Path) -> None:
    """Object arrays are refused."""
    np.save(tmp_path / "s.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(LoadError, match="cannot be read"):
        load_samples(tmp_path, VersionSettings(samples="s.npy"), MATRIX)


def test_made_up_rows() -> None:
    """Zeros, ones, a ramp; text is "a"; the same each time."""
    first, second = generated_samples(MATRIX, 4), generated_samples(MATRIX, 4)
    assert first is not None
    assert second is not None
    assert first["x"].tolist() == [[0, 0], [1, 1], [1, 1.5], [1.5, 2]]
    assert np.array_equal(first["x"], second["x"])
    table = generated_samples(TABLE, 2)
    assert table is not None
    assert table["t"].tolist() == [b"a", b"a"]


@pytest.mark.parametrize("datatype", ["BOOL", "INT64", "FP16", "BF16", "UINT8"])
def test_made_up_rows_of_any_datatype(datatype: str) -> None:
    """Every numeric datatype is filled."""
    from hotswap.core.datatypes import NUMPY_OF

    found = generated_samples(Signature((TensorSpec("x", datatype, (-1, 3, 2)),), ()), 3)
    assert found is not None
    assert (found["x"].dtype, found["x"].shape) == (NUMPY_OF[datatype], (3, 3, 2))


def test_unknown_sizes_give_no_rows() -> None:
    """An open dimension cannot be filled."""
    assert generated_samples(Signature((TensorSpec("x", "FP32", (-1, -1)),), ()), 2) is None
    assert generated_samples(Signature((), ()), 2) is None
