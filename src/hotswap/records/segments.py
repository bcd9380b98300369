"""Reading live segments: whatever is whole in them, and what is wrong with the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hotswap.records.schema import fingerprint

if TYPE_CHECKING:
    import pyarrow as pa


class Read(NamedTuple):
    """``batches`` that are whole; ``problem``: why not more, "" if that was all.

    ``cut``: it ends in the middle of a batch, as one does whose writer was killed.
    """

    batches: list[pa.RecordBatch]
    problem: str = ""
    cut: bool = False


def read_segment(path: Path) -> Read:
    """Everything that is whole in a live segment. Never raises for what the file holds."""
    import pyarrow as pa

    batches: list[pa.RecordBatch] = []
    try:
        size = path.stat().st_size
        with pa.OSFile(str(path)) as source:
            if size < 8:
                return Read([], cut=True)
            reader = pa.ipc.open_stream(source)
            told = path.name.partition("-")[2].partition(".")[0]
            if told != fingerprint(reader.schema):
                return Read([], f"{path.name} is damaged (its columns are others than it says)")
            while True:
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return Read(batches)
                batch.validate(full=True)
                batches.append(batch)
    except FileNotFoundError:
        return Read([])
    except Exception as error:  # noqa: BLE001 (whatever damage makes Arrow raise)
        said = " ".join(str(error).split())
        if _is_cut(said):
            return Read(batches, cut=True)
        kept = f"; {len(batches)} batches before that are kept" if batches else ""
        return Read(batches, f"{path.name} is damaged ({said[:120]}){kept}")


def _is_cut(said: str) -> bool:
    """Whether Arrow says that the file ends too early."""
    return any(
        words in said
        for words in ("Expected to be able to read", "Expected to read", "Unexpected end of stream",
                      "Tried reading schema message, was null", "Corrupted message, only ",
                      "Corrupted metadata length, only ")
    )  # fmt: skip


__all__ = ["Read", "read_segment"]
