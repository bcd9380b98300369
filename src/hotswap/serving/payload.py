"""A request's tensors as they cross to a host: encoded once, whoever is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hotswap.core.signature import Signature
from hotswap.ipc.frames import Layout, encode_tensor
from hotswap.ports import Array

_CACHED: Final = 4096

#: The kind of failure in the operational counters, by the exception that said so.
FAILURES: Final = {
    "DeadlineExceeded": "timeout",
    "InvalidOutput": "invalid_output",
    "Overloaded": "overload",
    "HostLost": "lost",
    "OutOfMemory": "memory",
    "Unavailable": "unavailable",
    "CancelledError": "cancelled",
}

#: The same by the reason why another version answered.
KIND_OF: Final = {
    "error": "model",
    "timeout": "timeout",
    "invalid": "invalid_output",
    "lost": "lost",
    "overload": "overload",
    "unavailable": "unavailable",
    "breaker": "unavailable",
}


class Payload:
    """One encoded request: its layout, one buffer an input, the outputs it wants, its rows."""

    __slots__ = ("layout", "outputs", "raws", "rows")

    def __init__(
        self, layout: tuple[Layout, ...], raws: list[bytes], outputs: tuple[str, ...], rows: int
    ) -> None:
        self.layout = layout
        self.raws = raws
        self.outputs = outputs
        self.rows = rows


class Encoder:
    """Makes layouts and bytes of arrays; layouts that were seen before are the same objects."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[str, str, tuple[int, ...]], Layout] = {}

    def encode(
        self, signature: Signature, inputs: Mapping[str, Array]
    ) -> tuple[tuple[Layout, ...], list[bytes]]:
        """In the signature's order and datatypes; what nothing tells of, as floats."""
        layouts = []
        raws = []
        for spec in signature.inputs:
            array = inputs.get(spec.name)
            if array is None:
                continue
            layouts.append(self._layout(spec.name, spec.datatype, array.shape[1:]))
            raws.append(encode_tensor(array, spec.datatype))
        if not layouts:  # nothing told what this version takes: what was sent, under its names
            for name, array in inputs.items():
                layouts.append(self._layout(name, "FP64", array.shape[1:]))
                raws.append(encode_tensor(array, "FP64"))
        return tuple(layouts), raws

    def _layout(self, name: str, datatype: str, shape: tuple[int, ...]) -> Layout:
        key = (name, datatype, shape)
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) > _CACHED:
                self._layouts.clear()  # shapes come from clients: they must not grow this for ever
            layout = self._layouts[key] = Layout(name, datatype, shape)
        return layout


__all__ = ["FAILURES", "KIND_OF", "Encoder", "Payload"]
