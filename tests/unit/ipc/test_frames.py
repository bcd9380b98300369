"""Frames: any cut of the byte stream, any tensor, and no harm from bytes that are not ours."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hotswap.core.datatypes import NUMPY_OF
from hotswap.ipc.frames import (
    Answer,
    Array,
    Call,
    Cancel,
    Failure,
    FrameReader,
    Header,
    Hello,
    Layout,
    decode_bytes,
    decode_tensor,
    encode_bytes,
    encode_tensor,
    pack,
)

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=5)
LAYOUT = st.builds(
    Layout, st.text(max_size=5), st.sampled_from(sorted(NUMPY_OF)),
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
)  # fmt: skip
LAYOUTS = st.lists(LAYOUT, max_size=3).map(tuple)
NUMBERS = st.integers(0, 2**40)
HEADERS: st.SearchStrategy[Header] = st.one_of(
    st.builds(Hello, st.text(max_size=5), NUMBERS),
    st.builds(Cancel, IDS),
    st.builds(
        Call, LAYOUTS, st.lists(st.text(max_size=4)).map(tuple), IDS, IDS,
        st.lists(st.floats(0, 1e9)), IDS, st.integers(0, 2**63),
    ),
    st.builds(Answer, IDS, IDS, LAYOUTS, IDS, NUMBERS, NUMBERS),
    st.builds(Failure, IDS, st.text(max_size=5), st.text(max_size=20), st.text(max_size=20)),
)  # fmt: skip
FRAMES = st.lists(st.tuples(HEADERS, st.binary(max_size=200)), max_size=5)


def _cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=30))
def test_frames_arrive_whole_however_the_stream_is_cut(
    frames: list[tuple[Header, bytes]], cuts: list[int]
) -> None:
    """The same headers and payloads come out, in order, from any splitting of the bytes."""
    stream = b"".join(pack(header, payload) for header, payload in frames)
    reader = FrameReader()
    seen = [
        (header, bytes(payload))
        for part in _cut(stream, cuts)
        for header, payload in reader.feed(part)
    ]
    assert seen == frames


def test_one_byte_at_a_time() -> None:
    """The worst cut of all: each frame appears with its last byte."""
    first, second = pack(Hello("7", 3)), pack(Cancel([1]), b"ab", memoryview(b"c"))
    reader = FrameReader()
    seen = []
    for at, byte in enumerate(first + second):
        seen += [(at + 1, header) for header, _ in reader.feed(bytes([byte]))]
    assert seen == [(len(first), Hello("7", 3)), (len(first + second), Cancel([1]))]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_hostile_bytes_are_a_value_error_at_worst(noise: bytes, cuts: list[int]) -> None:
    """Noise either waits for more or is refused; it never raises anything else."""
    reader = FrameReader()
    try:
        for part in _cut(noise, cuts):
            list(reader.feed(part))
    except ValueError:
        pass


@given(HEADERS, st.integers(0, 300), st.integers(0, 255))
def test_a_corrupted_frame_is_a_value_error_at_worst(header: Header, at: int, byte: int) -> None:
    """One changed byte is refused, or gives a header of our own types."""
    frame = bytearray(pack(header, b"payload"))
    frame[at % len(frame)] = byte
    try:
        for seen, _ in FrameReader().feed(bytes(frame)):
            assert isinstance(seen, Header)
    except ValueError:
        pass


@pytest.mark.parametrize(
    "prefix",
    [(0xFFFF_FFFF, 4), (8, 9), (8, 5), (0, 0), (3, 0)],
    ids=["too long", "header longer than frame", "header past the end", "empty", "too short"],
)
def test_lengths_out_of_range_are_refused(prefix: tuple[int, int]) -> None:
    """Lengths that cannot be are refused at once, whatever follows."""
    with pytest.raises(ValueError, match=r"out of range|truncated"):
        list(FrameReader().feed(struct.pack("<II", *prefix) + b"\x92\x02\x90" + bytes(32)))


def _equal(left: Array, right: Array) -> bool:
    if left.dtype == object:
        return bool(left.shape == right.shape and left.tolist() == right.tolist())
    return bool(np.array_equal(left, right, equal_nan=left.dtype.kind == "f"))


def _arrays(datatype: str) -> st.SearchStrategy[Any]:
    shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
    if datatype == "BYTES":
        elements = st.binary(max_size=6)
        return hnp.arrays(np.dtype(object), shapes, elements=elements, fill=st.just(b""))
    return hnp.arrays(NUMPY_OF[datatype], shapes)


@given(st.data())
def test_tensors_survive_the_wire(data: st.DataObject) -> None:
    """Every datatype and shape, empty ones too, comes back as it was sent."""
    datatype = data.draw(st.sampled_from(sorted(NUMPY_OF)))
    array = data.draw(_arrays(datatype))
    raw = encode_tensor(array, datatype)
    again = decode_tensor(raw, Layout("x", datatype, array.shape[1:]), array.shape[0])
    assert again.dtype == NUMPY_OF[datatype]
    assert _equal(again, array)


def test_big_endian_arrays_travel_as_little_endian() -> None:
    """A big-endian array keeps its values."""
    raw = encode_tensor(np.array([1.5, -2.0], dtype=">f4"), "FP32")
    assert raw == np.array([1.5, -2.0], dtype="<f4").tobytes()


def test_text_travels_as_utf8() -> None:
    """Strings of numpy or of Python are BYTES in UTF-8."""
    assert decode_bytes(encode_bytes(np.array(["ä", "b"]))).tolist() == ["ä".encode(), b"b"]
    assert decode_bytes(encode_bytes(np.array(["ä", 7], dtype=object))).tolist() == [
        "ä".encode(), b"7",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "count", "reason"),
    [
        (b"\x01\x00", None, "within a length"),
        (b"\x05\x00\x00\x00abc", None, "within an element"),
        (b"\xff\xff\xff\xffabc", None, "within an element"),
        (b"\x01\x00\x00\x00a", 2, "1 elements where 2"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(raw: bytes, count: int | None, reason: str) -> None:
    """A BYTES tensor that ends early or has the wrong count is a sentence, not a crash."""
    with pytest.raises(ValueError, match=reason):
        decode_bytes(raw, count)


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_a_tensor_of_the_wrong_size_is_refused(datatype: str) -> None:
    """Bytes for three rows are not four rows."""
    raw = encode_tensor(np.ones((3, 2), dtype=NUMPY_OF[datatype]), datatype)
    with pytest.raises(ValueError, match="reshape"):
        decode_tensor(raw, Layout("x", datatype, (2,)), 4)
