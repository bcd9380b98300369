"""Adapting a version to its model's signature: what is accepted works, the rest is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.core.adaptation import adapt, castable
from hotswap.core.datatypes import FLOATS, NUMPY_OF
from hotswap.core.signature import Signature, TensorSpec
from hotswap.errors import SignatureMismatch
from hotswap.ports import Array
from hotswap.serving.adapted import AdaptedExecutor

INTS = {name for name in NUMPY_OF if name.startswith(("INT", "UINT"))}
ROWS = 3


def _array(spec: TensorSpec) -> Array:
    """Three rows of ones (or of b"x") as the spec has them; any size is 2."""
    shape = (ROWS, *(2 if size == -1 else size for size in spec.shape[1:]))
    if spec.datatype == "BYTES":
        return np.full(shape, b"x", dtype=object)
    return np.ones(shape, dtype=NUMPY_OF[spec.datatype])


class Strict:
    """A version that takes exactly what its signature says, and gives exactly that."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.closed = False
        self.seen: dict[str, Array] = {}

    def predict(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        assert set(inputs) == {spec.name for spec in self.signature.inputs}
        for spec in self.signature.inputs:
            array = inputs[spec.name]
            assert array.dtype == NUMPY_OF[spec.datatype], spec
            assert len(array.shape) == len(spec.shape)
            assert all(d in (-1, s) for d, s in zip(spec.shape[1:], array.shape[1:], strict=True))
        self.seen = dict(inputs)
        wanted = outputs or [spec.name for spec in self.signature.outputs]
        every = {spec.name: _array(spec) for spec in self.signature.outputs}
        return {name: every[name] for name in wanted}

    def close(self) -> None:
        self.closed = True


DATATYPES = st.sampled_from(["FP64", "FP32", "FP16", "INT64", "INT8", "UINT16", "BOOL", "BYTES"])
SIZES = st.sampled_from([-1, 1, 2, 3])
NAMES = st.sampled_from(["a", "b", "c"])


def _tensors(least: int) -> st.SearchStrategy[tuple[TensorSpec, ...]]:
    tensor = st.builds(
        lambda name, datatype, sizes: TensorSpec(name, datatype, (-1, *sizes)),
        NAMES, DATATYPES, st.lists(SIZES, max_size=2),
    )  # fmt: skip
    return st.lists(tensor, min_size=least, max_size=3, unique_by=lambda t: t.name).map(tuple)


COLUMNS = st.lists(
    st.builds(lambda name, datatype: TensorSpec(name, datatype, (-1,)), NAMES, DATATYPES),
    min_size=1, max_size=3, unique_by=lambda t: t.name,
).map(tuple)  # fmt: skip
SIGNATURES = st.one_of(
    st.builds(Signature, _tensors(1), _tensors(1)),
    st.builds(lambda i, o: Signature(i, o, kind="table"), COLUMNS, _tensors(1)),
)


@given(SIGNATURES, SIGNATURES)
def test_what_is_accepted_answers_by_the_public_signature(
    own: Signature, public: Signature
) -> None:
    """An accepted version is given what it declares, and its answer has every public output."""
    try:
        plan = adapt(own, public)
    except SignatureMismatch:
        return
    version = Strict(own)
    adapted = AdaptedExecutor(version, public, plan)
    answer = adapted.predict({spec.name: _array(spec) for spec in public.inputs}, ())
    assert list(answer) == [spec.name for spec in public.outputs]
    for spec in public.outputs:
        assert answer[spec.name].dtype == NUMPY_OF[spec.datatype]
        assert answer[spec.name].shape[0] == ROWS
        assert len(answer[spec.name].shape) == len(spec.shape)
    one = public.outputs[-1].name
    assert list(adapted.predict({s.name: _array(s) for s in public.inputs}, [one])) == [one]


@given(SIGNATURES)
def test_every_signature_fits_itself(signature: Signature) -> None:
    """A version with the model's own signature is accepted with nothing to map."""
    plan = adapt(signature, signature)
    assert plan.identity
    assert not plan.stack
    assert not plan.split


@pytest.mark.parametrize("source", sorted(NUMPY_OF))
@pytest.mark.parametrize("target", sorted(NUMPY_OF))
def test_the_castable_table(source: str, target: str) -> None:
    """Floats to floats, whole numbers to numbers, truth values to numbers; nothing else."""
    allowed = {name: {name} for name in NUMPY_OF}
    for name in FLOATS - {"BF16"}:
        allowed[name] |= FLOATS - {"BF16"}
    for name in INTS:
        allowed[name] |= INTS | FLOATS - {"BF16"}
    allowed["BOOL"] |= INTS | FLOATS
    assert castable(source, target) == (target in allowed[source])


def _matrix(name: str, datatype: str, width: int) -> TensorSpec:
    return TensorSpec(name, datatype, (-1, width))


LABEL = (TensorSpec("predict", "INT64", (-1,)),)
FRAME = Signature(
    (TensorSpec("age", "INT64", (-1,)), TensorSpec("income", "FP64", (-1,))), LABEL, kind="table"
)


def test_columns_fill_a_matrix_in_the_models_order() -> None:
    """A model of columns is served by a version that takes one matrix."""
    own = Signature((_matrix("X", "FP32", 2),), LABEL)
    version = Strict(own)
    adapted = AdaptedExecutor(version, FRAME, adapt(own, FRAME))
    adapted.predict({"income": np.array([0.5, 1.5]), "age": np.array([7, 8])}, ())
    np.testing.assert_array_equal(version.seen["X"], np.array([[7, 0.5], [8, 1.5]], np.float32))


def test_large_whole_numbers_survive_stacking() -> None:
    """Columns of different integer types are not joined by way of floats."""
    columns = (TensorSpec("a", "INT64", (-1,)), TensorSpec("b", "UINT64", (-1,)))
    public = Signature(columns, LABEL, kind="table")
    own = Signature((_matrix("X", "INT64", 2),), LABEL)
    version = Strict(own)
    big = 2**53 + 1
    AdaptedExecutor(version, public, adapt(own, public)).predict(
        {"a": np.array([big]), "b": np.array([5], np.uint64)}, ()
    )
    assert version.seen["X"].tolist() == [[big, 5]]


def test_a_matrix_is_split_into_the_versions_columns() -> None:
    """A model of one matrix is served by a version fitted on a frame, cast column by column."""
    public = Signature((_matrix("X", "FP32", 2),), LABEL)
    own = Signature(
        (TensorSpec("age", "FP64", (-1,)), TensorSpec("income", "FP32", (-1,))), LABEL, kind="table"
    )
    version = Strict(own)
    adapted = AdaptedExecutor(version, public, adapt(own, public))
    adapted.predict({"X": np.array([[1, 2], [3, 4]], np.float32)}, ())
    assert version.seen["age"].tolist() == [1.0, 3.0]
    assert version.seen["age"].dtype == np.float64
    assert version.seen["income"].tolist() == [2.0, 4.0]
    adapted.close()
    assert version.closed


def test_every_difference_is_named_at_once() -> None:
    """The refusal lists each input and output that does not fit, not just the first."""
    own = Signature(
        (TensorSpec("a", "INT64", (-1,)), TensorSpec("z", "FP32", (-1,))),
        (TensorSpec("label", "BYTES", (-1,)), TensorSpec("score", "FP32", (-1,))),
    )
    public = Signature(
        (TensorSpec("a", "BYTES", (-1,)), TensorSpec("b", "FP32", (-1,))),
        (TensorSpec("label", "INT64", (-1,)), TensorSpec("proba", "FP32", (-1, 2))),
    )
    with pytest.raises(SignatureMismatch) as caught:
        adapt(own, public)
    message = str(caught.value)
    for part in ("'a' BYTES", "'z' FP32", "'label' INT64", "'proba' FP32 [-1, 2] is missing"):
        assert part in message


def test_a_wrong_width_is_refused() -> None:
    """A version fitted on 31 features cannot serve a model of 30."""
    with pytest.raises(SignatureMismatch, match=r"\[-1, 30\] does not fit"):
        adapt(
            Signature((_matrix("x", "FP64", 31),), LABEL),
            Signature((_matrix("y", "FP64", 30),), LABEL),
        )


def test_single_inputs_and_outputs_match_whatever_their_names() -> None:
    """ONNX's `float_input` and `variable` serve a model's `input` and `predict`."""
    own = Signature((_matrix("float_input", "FP32", 4),), (TensorSpec("variable", "INT32", (-1,)),))
    public = Signature((_matrix("input", "FP64", 4),), LABEL)
    plan = adapt(own, public)
    assert plan.inputs == (("float_input", "input", "FP32"),)
    assert plan.outputs == (("predict", "variable", "INT64"),)
    assert not plan.identity
