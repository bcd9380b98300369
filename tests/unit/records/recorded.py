"""Records of made-up requests on disk, in rings and segments, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hotswap.ipc.frames import Layout
from hotswap.ipc.records import Chunk, Context, Label, Labels, encode
from hotswap.ipc.ring import Ring
from hotswap.records import dataset, schema
from hotswap.records.privacy import Privacy
from hotswap.records.recording import Recording

#: The beginning of a day, Unix time.
START = 1_700_006_400


def chunk(
    *ids: str,
    model: str = "m",
    at: float = START,
    value: float = 1.5,
    features: tuple[str, ...] = ("age", "income"),
    **more: Any,
) -> Chunk:
    """One row a request, of a tensor of two features and one output."""
    import numpy as np

    many = len(ids)
    given: dict[str, Any] = {
        "model": model,
        "features": features,
        "contexts": [Context("v1")],
        "context": [0] * many,
        "ids": list(ids),
        "rows": [1] * many,
        "offset": int(at * 1e9),
        "times": list(range(1000, 1000 * (many + 1), 1000)),
        "latencies": [2_000_000] * many,
        "queues": [1000] * many,
        "computes": [1000] * many,
        "keys": None,
        "inputs": (Layout("x", "FP64", (2,)),),
        "raws": [np.full((many, 2), value).tobytes()],
        "outputs": (Layout("predict", "INT64", ()),),
        "output_raws": [np.arange(many).tobytes()],
    }
    return Chunk(**(given | more))


def table(*ids: str, at: float = START, **more: Any) -> pa.Table:
    """Lines as they are kept; ``more`` are columns (name -> list), for all or in place of others."""
    columns: dict[str, Any] = {
        "time": [int(at * 1e6) + n for n in range(len(ids))],
        "request_id": list(ids),
        "row": [0] * len(ids),
        "rows": [1] * len(ids),
        "version": ["v1"] * len(ids),
    }
    given = columns | more
    made = {
        field.name: pa.array(given.pop(field.name, [None] * len(ids)), field.type)
        for field in schema.fixed()
    }
    return pa.table(made | given)


class Keeping:
    """A recorder's rings and folders. `recording` is its present one; `again` is its successor."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.rings = folder / "rings"
        self.root = folder / "records"
        self.rings.mkdir()
        self.said: list[str] = []
        self.settings: dict[str, Any] = {
            "privacy": Privacy(), "location": None, "days": 30.0, "most_bytes": 1 << 40,
        } | more  # fmt: skip
        self._writers: dict[str, Ring] = {}
        self.recording: Recording
        self.again()

    def again(self, run: str = "run") -> Recording:
        """The one before was killed; unless told otherwise, the server was not."""
        self.kill()
        settings = self.settings
        self.recording = Recording(
            self.rings, self.root, run, settings["privacy"], settings["location"],
            settings["days"], settings["most_bytes"], self.said.append,
        )  # fmt: skip
        return self.recording

    def kill(self) -> None:
        """Nothing is finished; the kernel closes its files."""
        present = getattr(self, "recording", None)
        if present is not None and present._writer is not None:
            for stream in present._writer._open.values():
                stream.close(whole=False)

    def ring(self, name: str = "0.0") -> Ring:
        if name not in self._writers:
            self._writers[name] = Ring.create(self.rings / name, 1 << 18)
        return self._writers[name]

    def put(self, *messages: Chunk | Labels, ring: str = "0.0") -> None:
        for message in messages:
            rows = len(message.ids) if isinstance(message, Chunk) else 0
            assert self.ring(ring).put([encode(message)], rows)

    def label(self, *labels: Label, received: float = START, ring: str = "0.0") -> None:
        self.put(Labels(int(received * 1e6), list(labels)), ring=ring)

    def drain(self, now: float = START) -> int:
        return self.recording.drain(now)

    def compact(self, now: float = START) -> None:
        """Close everything and compact it."""
        self.recording.rotate(now, everything=True)
        self.recording.compact(now)

    def ids(self, model: str = "m", **more: Any) -> list[str]:
        """Every request's id, as it is read; sorted, as often as it is there."""
        return [
            row[0] for row in self.ask("SELECT request_id FROM records ORDER BY 1", model, **more)
        ]

    def ask(self, sql: str, model: str = "m", **more: Any) -> list[tuple[Any, ...]]:
        more.setdefault("location", self.settings["location"])
        with dataset.open(self.root, model, **more) as opened:
            self.skipped = opened.skipped
            return opened.sql.execute(sql).fetchall()

    def bytes(self) -> bytes:
        """Of everything that lies below the rings and the root."""
        files: Sequence[Path] = [*self.root.rglob("*"), *self.rings.rglob("*")]
        return b"".join(path.read_bytes() for path in files if path.is_file())
