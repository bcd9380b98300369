"""Every runtime and every format keeps the port's contract, on real models."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotswap.plugins import find_runtime
from hotswap.testing.checks import check_runtime
from tests.models import FORMATS, TRUSTED_ONLY, breast_cancer, expected, write_breast_cancer

INPUT = {"onnx": "input"}


@pytest.mark.parametrize("fmt", FORMATS)
def test_breast_cancer(fmt: str, tmp_path: Path) -> None:
    """Each format of the same model answers labels and probabilities as its own library does."""
    rows = breast_cancer()[0][:40]
    folder = write_breast_cancer(tmp_path / "v1", fmt, seed=3)
    runtime, entry = find_runtime(folder)
    assert (runtime.runs_code(folder, entry) is not None) == (fmt in TRUSTED_ONLY)
    signature = check_runtime(
        runtime,
        folder,
        {"input": rows},
        expected(fmt, 3, rows),
        atol=1e-4 if fmt == "onnx" else 1e-6,
    )
    assert {spec.name for spec in signature.outputs} == {
        "predict",
        "predict_proba",
    } or not signature.outputs
