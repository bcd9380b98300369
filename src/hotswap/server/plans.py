"""What a signature means for decoding, worked out once per signature."""

from __future__ import annotations

import math
import struct
from typing import Any, Final

import numpy as np

from hotswap.core.datatypes import NUMPY_OF
from hotswap.core.signature import Signature, TensorSpec

#: The largest finite FP32.

_CACHED_HEADS: Final = 256


class Plan:
    """How to decode for one signature.

    ``columns``: each input is one value a row, so that rows of plain values name them all.
    ``quick``: one float tensor input with every size but the batch's fixed, the shape of most
    requests, which ``name``, ``dtype``, ``tail`` and ``width`` (values a row) describe.
    ``half``: an output is of a type that JSON cannot carry. ``heads``: the JSON with which an
    output of a name and dtype begins, up to its shape.
    """

    __slots__ = (
        "_pack_row",
        "asked",
        "columns",
        "dtype",
        "half",
        "heads",
        "name",
        "names",
        "quick",
        "signature",
        "single",
        "tail",
        "width",
    )

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        inputs = signature.inputs
        self.names: dict[str, TensorSpec] = {spec.name: spec for spec in inputs}
        self.single: TensorSpec | None = inputs[0] if len(inputs) == 1 else None
        self.columns = bool(inputs) and (
            signature.kind == "table"
            or (len(inputs) > 1 and all(spec.shape[1:] in ((), (1,)) for spec in inputs))
        )
        self.name = inputs[0].name if inputs else ""
        self.tail: list[int] = list(inputs[0].shape[1:]) if inputs else []
        self.width = math.prod(self.tail)
        self.dtype: np.dtype[Any] = NUMPY_OF[inputs[0].datatype] if inputs else np.dtype("f8")
        self.asked: set[tuple[str, ...]] = set()
        self.heads: dict[tuple[str, np.dtype[Any]], bytes] = {}
        self.half = any(spec.datatype in ("FP16", "BF16") for spec in signature.outputs)
        self.quick = (
            self.single is not None
            and signature.kind == "tensor"
            and self.single.shape[:1] == (-1,)
            and self.single.datatype in ("FP32", "FP64")
            and self.width > 0
            and all(size > 0 for size in self.tail)
        )
        row = f"<{self.width}{self.dtype.char}" if self.quick else ""
        self._pack_row = struct.Struct(row).pack

    def remember(self, name: str, dtype: np.dtype[Any], head: bytes) -> None:
        """Keep an output's head; a model that invents names does not fill the memory."""
        if len(self.heads) < _CACHED_HEADS:
            self.heads[(name, dtype)] = head

    def allow(self, outputs: tuple[str, ...]) -> None:
        """These names were checked: the next request that asks for them need not be."""
        if len(self.asked) < _CACHED_HEADS:
            self.asked.add(outputs)

    def floats(
        self, values: list[float | None], rows: int
    ) -> np.ndarray[Any, np.dtype[Any]] | None:
        """``rows`` rows for a quick plan's input, or None if the careful path must look."""
        # `struct` makes the bytes that go to the host in one step, and knows what does not fit.
        if rows == 1:
            pack = self._pack_row
        else:
            pack = struct.Struct(f"<{len(values)}{self.dtype.char}").pack
        try:
            raw = pack(*values)
        except (struct.error, OverflowError):  # a null, which is NaN, or too large for FP32
            return None
        return np.frombuffer(raw, self.dtype).reshape((rows, *self.tail))


class Plans:
    """The plans of the signatures in use, by identity: a route table keeps its signature."""

    __slots__ = ("_plans",)

    def __init__(self) -> None:
        self._plans: dict[int, Plan] = {}

    def of(self, signature: Signature) -> Plan:
        """The plan of a signature. A plan keeps its signature alive, so ids stay distinct."""
        plan = self._plans.get(id(signature))
        if plan is None:
            if len(self._plans) >= 512:
                self._plans.clear()
            plan = self._plans[id(signature)] = Plan(signature)
        return plan
