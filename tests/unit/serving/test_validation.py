"""Validation: a version is fit to serve only if it answers, alone as in a batch, as it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from hotswap.core.signature import Signature, TensorSpec
from hotswap.errors import LoadError, SignatureMismatch
from hotswap.ports import Array
from hotswap.serving.adapted import AdaptedExecutor
from hotswap.serving.validation import Validated, validate

INPUT = (TensorSpec("x", "FP64", (-1, 2)),)
UNTOLD = Signature(INPUT, ())
SAMPLES = {"x": np.arange(6.0).reshape(3, 2)}
Behave = Callable[[Array], dict[str, Array]]


class Version:
    """An executor of one behaviour; it remembers how many rows each call had."""

    def __init__(self, behave: Behave, signature: Signature = UNTOLD) -> None:
        self.signature = signature
        self.behave = behave
        self.rows: list[int] = []

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.rows.append(len(inputs["x"]))
        return self.behave(inputs["x"])

    def close(self) -> None:
        """Nothing to close."""


def good(x: Array) -> dict[str, Array]:
    """A label and two probabilities a row."""
    return {"predict": x.sum(1).astype(np.int64), "predict_proba": x / 10}


def _validate(
    behave: Behave,
    *,
    signature: Signature = UNTOLD,
    samples: Mapping[str, Array] | None = SAMPLES,
    public: Signature | None = None,
    finite: bool = False,
    allow_unvalidated: bool = False,
) -> Validated:
    return validate(
        Version(behave, signature), samples, public,
        finite=finite, allow_unvalidated=allow_unvalidated,
    )  # fmt: skip


def test_outputs_are_learned_from_what_is_seen() -> None:
    """An artifact that does not tell its outputs is asked: names, datatypes and shapes."""
    validated = _validate(good)
    assert validated.signature == Signature(
        INPUT,
        (TensorSpec("predict", "INT64", (-1,)), TensorSpec("predict_proba", "FP64", (-1, 2))),
        learned=True,
    )
    assert validated.warnings == ()
    assert validated.steady_seconds > 0


def test_outputs_that_are_told_are_kept() -> None:
    """What the artifact declares stays as it is, and is not called learned."""
    told = Signature(INPUT, (TensorSpec("predict", "INT64", (-1,)),))
    assert _validate(good, signature=told).signature == told


def test_a_declared_output_that_does_not_come_is_refused() -> None:
    """A signature that promises more than the version gives."""
    told = Signature(INPUT, (TensorSpec("score", "FP64", (-1,)),))
    with pytest.raises(LoadError, match="output 'score' of the signature is not among"):
        _validate(good, signature=told)


def test_it_is_warmed_with_one_row_and_with_many() -> None:
    """The first request of either kind is not the one that pays for lazy work."""
    version = Version(good)
    validate(version, SAMPLES, None, finite=False, allow_unvalidated=False)
    assert {1, 16} <= set(version.rows)


BAD: dict[str, tuple[Behave, str]] = {
    "no output": (lambda x: {}, "gave no output"),
    "too few rows": (lambda x: {"y": x[:2, 0]}, "output 'y' has 2 rows for 3 rows"),
    "no rows": (lambda x: {"y": np.array(1.0)}, "output 'y' has no rows for 3 rows"),
    "another shape alone": (
        lambda x: {"y": x if len(x) > 1 else x[:, :1]},
        r"output 'y' has shape \[1, 1\] for one row alone and \[3, 2\] in a batch",
    ),
    "squeezed alone": (
        lambda x: {"y": x if len(x) > 1 else x[0]},
        r"output 'y' has shape \[2\] for one row alone",
    ),
    "missing alone": (
        lambda x: {"y": x[:, 0]} if len(x) > 1 else {"z": x[:, 0]},
        "output 'y' has nothing for one row alone",
    ),
}


@pytest.mark.parametrize(("behave", "reason"), BAD.values(), ids=BAD)
def test_what_answers_wrongly_is_not_served(behave: Behave, reason: str) -> None:
    """Wrong rows or shapes, in a batch or alone, are told before any client sees them."""
    with pytest.raises(LoadError, match=reason):
        _validate(behave)


def test_what_the_version_raises_is_raised() -> None:
    """Its own exception is what the operator has to see."""

    def behave(x: Array) -> dict[str, Array]:
        raise ZeroDivisionError("by nought")

    with pytest.raises(ZeroDivisionError, match="by nought"):
        _validate(behave)


def test_values_that_are_not_finite() -> None:
    """A warning where it is allowed, a refusal where `finite` is asked for."""

    def behave(x: Array) -> dict[str, Array]:
        return {"y": np.full(len(x), np.nan)}

    assert "not finite" in _validate(behave).warnings[0]
    with pytest.raises(LoadError, match="not finite"):
        _validate(behave, finite=True)
    assert _validate(good, finite=True).warnings == ()


PUBLIC = Signature(
    (TensorSpec("input", "FP32", (-1, 2)),),
    (TensorSpec("predict", "INT32", (-1,)), TensorSpec("predict_proba", "FP32", (-1, 2))),
)


def test_a_later_version_serves_the_models_signature() -> None:
    """It is adapted: other names and datatypes outside than inside."""
    validated = _validate(good, public=PUBLIC)
    assert validated.signature == PUBLIC
    assert isinstance(validated.executor, AdaptedExecutor)
    answer = validated.executor.predict({"input": np.ones((2, 2), np.float32)}, ("predict",))
    assert {name: array.dtype for name, array in answer.items()} == {"predict": np.int32}


def test_a_version_that_does_not_fit_is_refused() -> None:
    """With the difference named."""
    with pytest.raises(SignatureMismatch, match="output 'predict_proba'"):
        _validate(lambda x: {"predict": x[:, 0].astype(np.int64)}, public=PUBLIC)


def test_a_version_that_tells_nothing_needs_permission() -> None:
    """Without samples nothing can be proved: refused, or served with a mark and a warning."""
    with pytest.raises(LoadError, match="--allow-unvalidated"):
        _validate(good, samples=None)
    validated = _validate(good, samples=None, allow_unvalidated=True)
    assert validated.signature.unvalidated
    assert "never run" in validated.warnings[0]


def test_an_unvalidated_version_is_served_under_the_models_signature() -> None:
    """It cannot be shown to fit, but its model's clients are told the same as before."""
    validated = _validate(good, samples=None, public=PUBLIC, allow_unvalidated=True)
    assert validated.signature == PUBLIC
