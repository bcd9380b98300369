"""What a model takes and gives: the public signature, which the model owns.

Later versions are adapted to it (`adapt`) or refused.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class TensorSpec(msgspec.Struct, frozen=True):
    """One named input or output.

    ``shape`` has the batch first; -1 stands for any size. ``datatype`` is one of the Open
    Inference Protocol's names (see `hotswap.core.datatypes`).
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


class Signature(msgspec.Struct, frozen=True):
    """The inputs and outputs of a model or of one version.

    ``kind`` is ``tensor`` (inputs are arrays, shape ``(-1, ...)``) or ``table`` (each input is
    a column, shape ``(-1,)``, and the model is given a data frame with those columns).
    ``feature_names`` names the columns of a one-input tensor model where they are known, so
    that clients may send ``{"name": value}``.
    ``learned`` is true if the outputs were seen by running the version rather than read from
    its artifact; ``unvalidated`` if nothing told what the version takes.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    kind: Literal["tensor", "table"] = "tensor"
    feature_names: tuple[str, ...] = ()
    learned: bool = False
    unvalidated: bool = False

    def input(self, name: str) -> TensorSpec | None:
        """The input of that name, or None."""
        return next((spec for spec in self.inputs if spec.name == name), None)

    def output(self, name: str) -> TensorSpec | None:
        """The output of that name, or None."""
        return next((spec for spec in self.outputs if spec.name == name), None)
