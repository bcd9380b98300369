"""Signatures where the artifact tells nothing: declared, seen in samples, or open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hotswap.core.datatypes import datatype_of
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.spec import VersionSettings
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


def of_arrays(inputs: Mapping[str, Array]) -> Signature:
    """The signature of these inputs: their datatypes, any number of rows."""
    return Signature(tuple(spec_of(name, array) for name, array in inputs.items()), ())


def spec_of(name: str, array: Array) -> TensorSpec:
    """The spec of one array, its first dimension open."""
    return TensorSpec(name, datatype_of(array.dtype), (-1, *array.shape[1:]))
