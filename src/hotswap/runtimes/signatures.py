"""Signatures where the artifact tells nothing: declared, seen in samples, or open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hotswap.core.datatypes import datatype_of
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import VersionSettings
from hotswap.errors import LoadError
from hotswap.ports import Array
from hotswap.runtimes.samples import load_samples

INPUT = "input"
"""The name of the one input of a model that names none."""


def tensor(
    datatype: str,
    shape: Sequence[int],
    outputs: Sequence[TensorSpec] = (),
    feature_names: Sequence[str] = (),
) -> Signature:
    """A signature of one array named ``input``; ``shape`` without the batch."""
    spec = TensorSpec(INPUT, datatype, (-1, *shape))
    return Signature((spec,), tuple(outputs), feature_names=tuple(feature_names))


def untold(folder: Path, settings: VersionSettings) -> Signature:
    """The declared signature, else the one that the samples show, else an open one.

    An open signature has no inputs and is ``unvalidated``: such a model is given one FP64
    array named ``input``, shape ``(-1, -1)``.
    """
    if settings.signature is not None:
        return settings.signature
    samples = load_samples(folder, settings, None)
    if samples is not None:
        return of_arrays(samples)
    return Signature((), (), unvalidated=True)


def agreed(own: Signature, settings: VersionSettings) -> Signature:
    """``own``, which the artifact tells; raises `LoadError` if version.yaml declares another."""
    declared = settings.signature
    if declared is None or not declared.inputs:
        return own
    one = len(own.inputs) == len(declared.inputs) == 1  # a lone input goes by any name
    told = {"" if one else spec.name: spec.shape[1:] for spec in own.inputs}
    said = {"" if one else spec.name: spec.shape[1:] for spec in declared.inputs}
    same = told.keys() == said.keys() and all(
        len(shape) == len(said[name])
        and all(a == b or -1 in (a, b) for a, b in zip(shape, said[name], strict=True))
        for name, shape in told.items()
    )
    outputs = {spec.name for spec in own.outputs}  # none: they are seen only later
    if not same or (outputs and {spec.name for spec in declared.outputs} - outputs):
        raise LoadError(
            f"version.yaml declares a signature ({_shown(declared)}) that is not the artifact's "
            f"({_shown(own)}): correct it, or leave it out"
        )
    return own


def _shown(signature: Signature) -> str:
    inputs = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in signature.inputs)
    outputs = ", ".join(spec.name for spec in signature.outputs)
    return f"{inputs} → {outputs}" if outputs else inputs


def of_arrays(inputs: Mapping[str, Array]) -> Signature:
    """The signature of these inputs: their datatypes, any number of rows."""
    return Signature(tuple(spec_of(name, array) for name, array in inputs.items()), ())


def spec_of(name: str, array: Array) -> TensorSpec:
    """The spec of one array, its first dimension open."""
    return TensorSpec(name, datatype_of(array.dtype), (-1, *array.shape[1:]))
