"""Requests of equal layout that came in one frame, as they wait in a host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hotswap.core.datatypes import NUMPY_OF
from hotswap.ipc.frames import Array, Call, Layout, decode_tensor

if TYPE_CHECKING:
    from hotswap.serving.hostloop import Connection

Key = tuple[tuple[Layout, ...], tuple[str, ...], bool]


class Chunk:
    """One `Call` with its payload. ``raws`` has one buffer an input, all rows joined.

    Raises ValueError if the call contradicts itself or its payload.
    """

    __slots__ = ("arrived_ns", "call", "connection", "key", "raws", "total_rows")

    def __init__(
        self, connection: Connection, call: Call, payload: memoryview, arrived_ns: int
    ) -> None:
        self.connection = connection
        self.call = call
        self.arrived_ns = arrived_ns
        self.key: Key = (call.layout, call.outputs, call.shadow)
        self.total_rows = sum(call.rows)
        at = 0
        raws: list[memoryview | bytes] = []
        for size in call.sizes:
            raws.append(payload[at : at + size])
            at += size
        self.raws = raws
        requests = {len(call.ids), len(call.rows), len(call.deadlines)}
        if len(requests) != 1 or not call.ids or min(call.rows) < 0:
            raise ValueError("a call's requests do not agree")
        if len(raws) != len(call.layout) or min(call.sizes, default=0) < 0 or at != len(payload):
            raise ValueError("a call's inputs do not agree with its payload")
        if any(layout.datatype not in NUMPY_OF for layout in call.layout):
            raise ValueError("a call has an unknown datatype")

    @property
    def alone(self) -> bool:
        return self.call.token != 0

    def arrays(self) -> list[Array]:
        """The tensors, one an input. Raises ValueError if the bytes do not fit the layout."""
        return [
            decode_tensor(raw, layout, self.total_rows)
            for raw, layout in zip(self.raws, self.call.layout, strict=True)
        ]

    def keep(self, wanted: Sequence[bool]) -> Chunk | None:
        """The same chunk with only the requests that are still wanted; None if there are none."""
        if not any(wanted):
            return None
        return self._select([at for at, keep in enumerate(wanted) if keep])

    def split(self) -> list[Chunk]:
        """One chunk a request."""
        if len(self.call.ids) == 1:
            return [self]
        return [self._select([at]) for at in range(len(self.call.ids))]

    def _select(self, which: list[int]) -> Chunk:
        call = self.call
        starts = np.concatenate(([0], np.cumsum(call.rows)))
        raws: list[bytes] = []
        for raw, layout in zip(self.raws, call.layout, strict=True):
            parts = [self._rows(raw, layout, int(starts[at]), int(starts[at + 1])) for at in which]
            raws.append(b"".join(parts))
        smaller = Call(
            layout=call.layout,
            outputs=call.outputs,
            ids=[call.ids[at] for at in which],
            rows=[call.rows[at] for at in which],
            deadlines=[call.deadlines[at] for at in which],
            sizes=[len(raw) for raw in raws],
            token=call.token,
            shadow=call.shadow,
        )
        return Chunk(self.connection, smaller, memoryview(b"".join(raws)), self.arrived_ns)

    def _rows(self, raw: memoryview | bytes, layout: Layout, start: int, stop: int) -> bytes:
        """The bytes of rows ``start`` to ``stop`` of one input."""
        per_row = 1
        for size in layout.shape:
            per_row *= size
        if layout.datatype != "BYTES":
            width = per_row * NUMPY_OF[layout.datatype].itemsize
            return bytes(raw[start * width : stop * width])
        at, element = 0, 0
        first, last = start * per_row, stop * per_row
        begin = 0
        while element < last:
            if element == first:
                begin = at
            at += 4 + int.from_bytes(raw[at : at + 4], "little")
            element += 1
        return bytes(raw[begin:at]) if last > first else b""


def join(chunks: Sequence[Chunk]) -> dict[str, Array]:
    """The inputs of a batch, by name: joining bytes is cheaper than joining many small arrays."""
    first = chunks[0]
    if len(chunks) == 1:
        return {
            layout.name: array
            for layout, array in zip(first.call.layout, first.arrays(), strict=True)
        }
    rows = sum(chunk.total_rows for chunk in chunks)
    return {
        layout.name: decode_tensor(b"".join([chunk.raws[at] for chunk in chunks]), layout, rows)
        for at, layout in enumerate(first.call.layout)
    }
