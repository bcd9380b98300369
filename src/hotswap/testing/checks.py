"""The ports' contracts as functions: call one from your own tests for your own adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hotswap.core.datatypes import NUMPY_OF
from hotswap.core.signature import Signature
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.ports import Array, Executor, Runtime


def check_runtime(
    runtime: Runtime,
    folder: Path,
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array] | None = None,
    *,
    settings: VersionSettings | None = None,
    atol: float = 1e-6,
) -> Signature:
    """Assert that a runtime keeps the port's contract on one artifact; returns its signature.

    ``inputs`` holds at least two rows, by the names of the signature; ``expected`` the outputs
    that must come for them (numbers within ``atol``, text exactly). Checked are: names, datatypes and shapes as
    the signature says; one row out for each in; the requested outputs and no others; the same
    answer when asked again, row by row, and in another order; inputs left as they were; a
    ``close`` that may be called twice. Raises AssertionError.
    """
    settings = settings or VersionSettings()
    entry = runtime.entry(folder)
    assert entry is not None, f"{runtime.name} finds no entry in the folder"
    reason = runtime.runs_code(folder, entry)
    assert reason is None or reason.endswith("."), "runs_code must be None or a sentence"
    runtime.preload()
    artifact = Artifact(str(folder.resolve()), entry, runtime.name, "sha256:" + "0" * 64)
    executor = runtime.load(artifact, settings)
    try:
        _check_answers(executor, inputs, expected, atol)
    finally:
        executor.close()
        executor.close()
    return executor.signature


def _check_answers(
    executor: Executor,
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array] | None,
    atol: float,
) -> None:
    signature = executor.signature
    rows = {len(array) for array in inputs.values()}
    assert len(rows) == 1, "give as many rows for every input"
    count = rows.pop()
    assert count >= 2, "give at least two rows"
    if not signature.unvalidated:
        names = {spec.name for spec in signature.inputs}
        assert names == set(inputs), f"the signature's inputs are {names}, given {set(inputs)}"
    before = {name: array.copy() for name, array in inputs.items()}
    answers = executor.predict(inputs, ())
    for name, array in before.items():
        _same(inputs[name], array, 0.0, f"input {name} after predict")
    _check_signature(signature, answers, count)
    for name, values in (expected or {}).items():
        assert name in answers, f"no output {name}: there are {sorted(answers)}"
        _same(answers[name], values, atol, f"output {name}")
    for name, values in answers.items():
        alone = executor.predict(inputs, (name,))
        assert set(alone) == {name}, f"asked for {name} alone, got {sorted(alone)}"
        _same(alone[name], values, atol, f"output {name} asked for alone")
    _check_rows(executor, inputs, answers, count, atol)


def _check_rows(
    executor: Executor,
    inputs: Mapping[str, Array],
    answers: Mapping[str, Array],
    count: int,
    atol: float,
) -> None:
    again = executor.predict(inputs, tuple(answers))
    reverse = executor.predict({name: array[::-1] for name, array in inputs.items()}, ())
    for name, values in answers.items():
        _same(again[name], values, atol, f"output {name} asked for again")
        _same(reverse[name][::-1], values, atol, f"output {name} of the rows in reverse")
    for row in range(min(count, 8)):
        single = executor.predict({n: array[row : row + 1] for n, array in inputs.items()}, ())
        for name, values in answers.items():
            _same(single[name], values[row : row + 1], atol, f"output {name} of row {row} alone")


def _check_signature(signature: Signature, answers: Mapping[str, Array], count: int) -> None:
    for name, values in answers.items():
        assert isinstance(values, np.ndarray), f"output {name} is no array"
        assert len(values) == count, f"output {name} has {len(values)} rows, not {count}"
    if not signature.outputs:
        return
    names = [spec.name for spec in signature.outputs]
    assert sorted(answers) == sorted(names), f"the signature says {names}, got {sorted(answers)}"
    for spec in signature.outputs:
        values = answers[spec.name]
        assert values.dtype == NUMPY_OF[spec.datatype], (
            f"output {spec.name} is {values.dtype}, not {spec.datatype}"
        )
        fits = len(spec.shape) == values.ndim and all(
            want in (-1, got) for want, got in zip(spec.shape, values.shape, strict=True)
        )
        assert fits, f"output {spec.name} has the shape {values.shape}, not {spec.shape}"


def _same(got: Array, want: Array, atol: float, what: str) -> None:
    assert got.shape == want.shape, f"{what}: shape {got.shape}, not {want.shape}"
    if got.dtype.kind in "OUSb":
        assert got.tolist() == want.tolist(), f"{what} differs"
    else:
        np.testing.assert_allclose(got, want, atol=atol, rtol=0, err_msg=what)
