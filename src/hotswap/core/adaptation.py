"""How a version with its own signature serves the model's public one. Pure.

The model owns the public signature; a later version is adapted to it (names mapped, safe casts)
or refused with every difference named.
"""

from __future__ import annotations

import msgspec

from hotswap.core.datatypes import FLOATS
from hotswap.core.signature import Signature, TensorSpec
from hotswap.errors import SignatureMismatch

_INTS = ("INT8", "INT16", "INT32", "INT64")
_UINTS = ("UINT8", "UINT16", "UINT32", "UINT64")


class Adaptation(msgspec.Struct, frozen=True):
    """Names and datatypes: own input <- (public input, own datatype); public output <- (own output, public datatype).

    ``stack`` names the public columns that fill a version's one matrix, in order; ``split``
    names the version's own columns that are filled from the model's one matrix.
    """

    inputs: tuple[tuple[str, str, str], ...]
    outputs: tuple[tuple[str, str, str], ...]
    stack: tuple[str, ...] = ()
    split: tuple[str, ...] = ()

    @property
    def identity(self) -> bool:
        """Whether names already agree (casts are then no-ops on equal datatypes)."""
        return (
            not self.stack
            and not self.split
            and all(own == public for own, public, _ in self.inputs)
            and all(own == public for public, own, _ in self.outputs)
        )


def castable(source: str, target: str) -> bool:
    """Whether values of ``source`` may be given as ``target``: floats to floats, ints to ints and floats.

    FP64 to FP32 is accepted (that is what converting a model to ONNX does); floats to ints,
    and anything to or from BYTES, are not.

    >>> castable("FP64", "FP32"), castable("FP32", "INT64")
    (True, False)
    """
    if source == target:
        return True
    numbers = (*_INTS, *_UINTS)
    if source in FLOATS and target in FLOATS:
        return "BF16" not in (source, target)
    if source == "BOOL":
        return target in numbers or target in FLOATS
    if source in numbers:
        return target in numbers or (target in FLOATS and target != "BF16")
    return False


def _fits(own: tuple[int, ...], public: tuple[int, ...]) -> bool:
    """Whether every shape that ``public`` allows is one that ``own`` takes."""
    if own == (-1, -1) and len(public) == 2:
        return True
    return len(own) == len(public) and all(
        o in (-1, p) for o, p in zip(own[1:], public[1:], strict=True)
    )


def _describe(spec: TensorSpec) -> str:
    return f"{spec.name!r} {spec.datatype} {list(spec.shape)}"


def adapt(own: Signature, public: Signature) -> Adaptation:
    """How ``own`` can serve ``public``. Raises `SignatureMismatch` naming every difference.

    One input is matched whatever its name; several by name. A matrix and the equal number of
    numeric columns are matched too (scikit-learn fitted on a frame against ONNX on a matrix).
    Every public output must be there, by name; more outputs are allowed and not shown.
    """
    problems: list[str] = []
    inputs, stack, split = _adapt_inputs(own, public, problems)
    outputs: list[tuple[str, str, str]] = []
    single = len(own.outputs) == 1 and len(public.outputs) == 1
    for spec in public.outputs:
        mine = own.outputs[0] if single else own.output(spec.name)
        if mine is None:
            names = ", ".join(repr(o.name) for o in own.outputs) or "none"
            problems.append(f"output {_describe(spec)} is missing (this version has {names})")
        elif not castable(mine.datatype, spec.datatype):
            problems.append(f"output {_describe(spec)} would be {mine.datatype}")
        elif not _same_output_shape(mine.shape, spec.shape):
            problems.append(f"output {_describe(spec)} would have shape {list(mine.shape)}")
        else:
            outputs.append((spec.name, mine.name, spec.datatype))
    if problems:
        raise SignatureMismatch(
            "the version does not fit the model's signature: " + "; ".join(problems)
        )
    return Adaptation(tuple(inputs), tuple(outputs), stack, split)


def _same_output_shape(own: tuple[int, ...], public: tuple[int, ...]) -> bool:
    if len(own) != len(public):
        return False
    return all(-1 in (o, p) or o == p for o, p in zip(own[1:], public[1:], strict=True))


def _adapt_inputs(
    own: Signature, public: Signature, problems: list[str]
) -> tuple[list[tuple[str, str, str]], tuple[str, ...], tuple[str, ...]]:
    """The input half of `adapt`: pairs, and the stacking or splitting of columns."""
    pairs: list[tuple[str, str, str]] = []
    if own.kind == public.kind == "tensor" and len(own.inputs) == len(public.inputs) == 1:
        candidates = [(own.inputs[0], public.inputs[0])]
    elif public.kind == "table" and own.kind == "tensor" and len(own.inputs) == 1:
        return _stack(own.inputs[0], public, problems)
    elif public.kind == "tensor" and own.kind == "table" and len(public.inputs) == 1:
        return _split(own, public.inputs[0], problems)
    else:
        candidates = []
        for mine in own.inputs:
            theirs = public.input(mine.name)
            if theirs is None:
                problems.append(f"input {_describe(mine)} is not among the model's inputs")
            else:
                candidates.append((mine, theirs))
    for mine, theirs in candidates:
        if not castable(theirs.datatype, mine.datatype):
            problems.append(f"input {_describe(theirs)} cannot be given as {mine.datatype}")
        elif not _fits(mine.shape, theirs.shape):
            problems.append(
                f"input {_describe(theirs)} does not fit the version's shape {list(mine.shape)}"
            )
        else:
            pairs.append((mine.name, theirs.name, mine.datatype))
    return pairs, (), ()


def _stack(
    own: TensorSpec, public: Signature, problems: list[str]
) -> tuple[list[tuple[str, str, str]], tuple[str, ...], tuple[str, ...]]:
    columns = tuple(spec.name for spec in public.inputs)
    bad = [spec for spec in public.inputs if not castable(spec.datatype, own.datatype)]
    if len(own.shape) != 2 or own.shape[1] not in (-1, len(columns)):
        problems.append(f"the model's {len(columns)} columns do not fit input {_describe(own)}")
    problems.extend(f"column {_describe(spec)} cannot be given as {own.datatype}" for spec in bad)
    return [(own.name, own.name, own.datatype)], columns, ()


def _split(
    own: Signature, public: TensorSpec, problems: list[str]
) -> tuple[list[tuple[str, str, str]], tuple[str, ...], tuple[str, ...]]:
    columns = tuple(spec.name for spec in own.inputs)
    if len(public.shape) != 2 or public.shape[1] != len(columns):
        problems.append(
            f"the model's input {_describe(public)} does not fit the version's {len(columns)} columns"
        )
    problems.extend(
        f"input {_describe(public)} cannot be given as column {_describe(spec)}"
        for spec in own.inputs
        if not castable(public.datatype, spec.datatype)
    )
    return [(public.name, public.name, public.datatype)], (), columns
