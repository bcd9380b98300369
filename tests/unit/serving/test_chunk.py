"""Chunks: cutting and joining bytes is cutting and joining arrays."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotswap.core.datatypes import NUMPY_OF
from hotswap.ipc.frames import Array, Call, Layout, encode_tensor
from hotswap.serving.chunk import Chunk, join
from hotswap.serving.hostloop import Connection

NOBODY = cast(Connection, object())
LAYOUTS = st.lists(
    st.builds(
        lambda number, datatype, shape: Layout(f"x{number}", datatype, tuple(shape)),
        st.integers(0, 9),
        st.sampled_from(["FP32", "INT64", "BOOL", "BF16", "BYTES"]),
        st.lists(st.integers(0, 3), max_size=2),
    ),
    min_size=1, max_size=3, unique_by=lambda layout: layout.name,
).map(tuple)  # fmt: skip
ROWS = st.lists(st.integers(0, 4), min_size=1, max_size=6)


def _array(layout: Layout, rows: int, seed: int) -> Array:
    shape = (rows, *layout.shape)
    count = int(np.prod(shape))
    if layout.datatype == "BYTES":
        array = np.empty(count, dtype=object)
        array[:] = [b"%d" % (7 ** (i % 9) + seed) * (i % 3) for i in range(count)]
        return array.reshape(shape)
    numbers = np.arange(seed, seed + count)
    return numbers.astype(NUMPY_OF[layout.datatype]).reshape(shape)


def _chunk(layouts: tuple[Layout, ...], rows: list[int], seed: int = 0) -> Chunk:
    raws = [encode_tensor(_array(each, sum(rows), seed), each.datatype) for each in layouts]
    ids = list(range(seed, seed + len(rows)))
    call = Call(
        layouts, ("y",), ids, rows, [float(i) for i in ids], [len(r) for r in raws], token=5
    )
    return Chunk(NOBODY, call, memoryview(b"".join(raws)), 123)


def _check(part: Chunk, whole: Chunk, which: list[int]) -> None:
    """``part`` holds the requests ``which`` of ``whole``, and nothing else of it changed."""
    edges = np.concatenate(([0], np.cumsum(whole.call.rows)))
    assert part.call.ids == [whole.call.ids[at] for at in which]
    assert part.call.rows == [whole.call.rows[at] for at in which]
    assert part.call.deadlines == [whole.call.deadlines[at] for at in which]
    assert (part.key, part.arrived_ns, part.alone) == (whole.key, 123, whole.alone)
    assert part.total_rows == sum(part.call.rows)
    for mine, theirs in zip(part.arrays(), whole.arrays(), strict=True):
        expected = np.concatenate([theirs[edges[at] : edges[at + 1]] for at in which])
        assert mine.shape == expected.shape
        assert mine.tolist() == expected.tolist()


@given(LAYOUTS, ROWS)
def test_splitting_gives_each_request_its_own_rows(
    layouts: tuple[Layout, ...], rows: list[int]
) -> None:
    """One chunk a request, with the slices of the arrays that are its own."""
    whole = _chunk(layouts, rows)
    parts = whole.split()
    assert len(parts) == len(rows)
    for at, part in enumerate(parts):
        _check(part, whole, [at])


@given(LAYOUTS, st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=6))
def test_keeping_drops_the_others_rows(
    layouts: tuple[Layout, ...], requests: list[tuple[int, bool]]
) -> None:
    """Only the wanted requests stay, in order; None if nobody wants any."""
    whole = _chunk(layouts, [rows for rows, _ in requests])
    wanted = [keep for _, keep in requests]
    part = whole.keep(wanted)
    if part is None:
        assert not any(wanted)
    else:
        _check(part, whole, [at for at, keep in enumerate(wanted) if keep])


@given(LAYOUTS, st.lists(ROWS, min_size=1, max_size=4))
def test_joining_is_concatenating(layouts: tuple[Layout, ...], sizes: list[list[int]]) -> None:
    """The inputs of a batch are its chunks' arrays, one after another, by name."""
    chunks = [_chunk(layouts, rows, seed=10 * at) for at, rows in enumerate(sizes)]
    joined = join(chunks)
    assert list(joined) == [layout.name for layout in layouts]
    for at, layout in enumerate(layouts):
        expected = np.concatenate([chunk.arrays()[at] for chunk in chunks])
        assert joined[layout.name].shape == expected.shape
        assert joined[layout.name].tolist() == expected.tolist()


X = Layout("x", "FP32", (2,))


@pytest.mark.parametrize(
    "call",
    [
        Call((X,), (), [], [], [], [8]),
        Call((X,), (), [1, 2], [1], [1.0], [8]),
        Call((X,), (), [1], [1], [], [8]),
        Call((X,), (), [1], [-1], [1.0], [8]),
        Call((X,), (), [1], [1], [1.0], []),
        Call((X,), (), [1], [1], [1.0], [7]),
        Call((X,), (), [1], [1], [1.0], [9]),
        Call((X, X), (), [1], [1], [1.0], [12, -4]),
        Call((Layout("x", "FP99", (2,)),), (), [1], [1], [1.0], [8]),
    ],
)
def test_a_call_that_contradicts_itself_is_refused(call: Call) -> None:
    """Lists of different lengths, sizes beside the payload, unknown types: ValueError at once."""
    with pytest.raises(ValueError, match="a call"):
        Chunk(NOBODY, call, memoryview(bytes(8)), 0)
