"""Notes of made-up requests, and what a recorder makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hotswap.core.signature import Signature, TensorSpec
from hotswap.ipc.records import Chunk, decode
from hotswap.ipc.ring import Ring
from hotswap.records.assemble import assemble
from hotswap.records.privacy import Privacy
from hotswap.serving.link import Outputs, Reply
from hotswap.serving.notes import Notes
from hotswap.serving.payload import Encoder

Arrays = dict[str, "np.ndarray[Any, Any]"]


def signature(
    inputs: Sequence[tuple[str, str, tuple[int, ...]]],
    outputs: Sequence[tuple[str, str, tuple[int, ...]]] = (("y", "FP64", (-1,)),),
    features: Sequence[str] = (),
) -> Signature:
    return Signature(
        tuple(TensorSpec(*each) for each in inputs),
        tuple(TensorSpec(*each) for each in outputs),
        feature_names=tuple(features),
    )


class Noting:
    """A worker's notes over a ring of its own."""

    def __init__(self, folder: Path, size: int = 1 << 20, **more: Any) -> None:
        self.ring = Ring.create(folder / "0.0", size)
        settings: dict[str, Any] = {"secret": b"s", "wall": lambda: 1e9, "coin": lambda: 0}
        self.notes = Notes(self.ring, **(settings | more))
        self._encode = Encoder().encode
        self.plain = self.notes.plain("v1", False)

    def add(
        self,
        signature: Signature,
        inputs: Arrays,
        reply: Reply,
        request_id: str = "r",
        context: Any = None,
        model: str = "m",
        **more: Any,
    ) -> None:
        layout, raws = self._encode(signature, inputs)
        rows = len(next(iter(inputs.values())))
        self.notes.add(
            request_id, 1000, 5_000_000, rows, layout, raws, reply, model, context or self.plain,
            signature, **more,
        )  # fmt: skip

    def chunks(self) -> list[Chunk]:
        """What is in the ring, after a flush; released."""
        self.notes.flush()
        found = []
        for chunk, position in self.ring.chunks():
            message = decode(chunk)
            assert isinstance(message, Chunk)
            found.append(message)
            self.ring.release(position)
        return found

    def lines(self, privacy: Privacy | None = None) -> list[dict[str, Any]]:
        """The recorder's lines of it."""
        batches = [assemble(chunk, privacy or Privacy()) for chunk in self.chunks()]
        return [line for batch in batches for line in pa.Table.from_batches([batch]).to_pylist()]


def reply(start: int = 0, stop: int | None = None, **arrays: Any) -> Reply:
    """A share of a batch with these outputs."""
    made = {
        name: value if isinstance(value, np.ndarray) else np.array(value)
        for name, value in (arrays or {"y": [1.0]}).items()
    }
    rows = len(next(iter(made.values())))
    outputs = Outputs(rows)
    outputs.extend(made.items())
    return Reply(outputs, start, rows if stop is None else stop, 5_000, 7_000)


def dynamic(line: dict[str, Any]) -> dict[str, Any]:
    """The columns that the signature brings."""
    return {
        name: value
        for name, value in line.items()
        if name.startswith(("input_", "output_", "other_output_"))
    }
