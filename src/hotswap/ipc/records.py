"""What workers tell the recorder, through their rings: chunks of records, by column, and labels.

A chunk holds records of one model with equal layouts, so that a column of tensors is one piece of
bytes. What many records share is told once, as a `Context`.
"""

from __future__ import annotations

import msgspec

from hotswap.ipc.frames import Layout


class Context(msgspec.Struct, frozen=True, array_like=True):
    """Who answered, and under which division. ``probability`` is the assigned arm's."""

    version: str
    arm: str | None = None
    probability: float | None = None
    test: str | None = None
    stage: int | None = None
    outcome: str = "ok"
    fallback: str | None = None


class Other(msgspec.Struct, array_like=True):
    """The other version's side, of the records ``at`` (indices in the chunk) that have one.

    ``answered``: which of those gave outputs; ``raws`` holds only these, output by output.
    """

    at: list[int]
    versions: list[str]
    outcomes: list[str]
    latencies: list[int]
    answered: list[int]
    outputs: tuple[Layout, ...]
    raws: list[bytes]


class Chunk(msgspec.Struct, array_like=True, tag=0):
    """Records of one model. ``times`` are monotonic and all durations too in nanoseconds; Unix time
    is ``offset`` later.

    ``inputs``, ``raws``: one piece of bytes an input, all records' rows one after another; none
    where inputs were not to be kept. ``features`` names the columns of a single tensor.
    """

    model: str
    features: tuple[str, ...]
    contexts: list[Context]
    context: list[int]
    ids: list[str]
    rows: list[int]
    offset: int
    times: list[int]
    latencies: list[int]
    queues: list[int]
    computes: list[int]
    keys: list[int | None] | None
    inputs: tuple[Layout, ...]
    raws: list[bytes]
    outputs: tuple[Layout, ...]
    output_raws: list[bytes]
    other: Other | None = None


class Label(msgspec.Struct, frozen=True, array_like=True):
    """The truth about one row. ``label`` is a number or a text; at least one of both is told."""

    request_id: str
    row: int = 0
    label: float | None = None
    text: str | None = None
    reward: float | None = None


class Labels(msgspec.Struct, array_like=True, tag=1):
    """Labels that arrived together, at ``received`` (µs of Unix time)."""

    received: int
    labels: list[Label]


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Chunk | Labels).decode

__all__ = ["Chunk", "Context", "Label", "Labels", "Other", "decode", "encode"]
