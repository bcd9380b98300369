"""From chunks to lines: alone or together, they say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.ipc.frames import Layout
from hotswap.ipc.records import Chunk, Context, Label, Labels, Other
from hotswap.records import schema
from hotswap.records.assemble import FEATURES, assemble, assemble_labels, merge
from hotswap.records.privacy import Privacy
from tests.unit.records.recorded import START, chunk

Y = (Layout("y", "FP32", ()),)
X = (Layout("x", "FP32", (2,)),)
CONTEXTS = (
    Context("v1"),
    Context("v2", "pinned"),
    Context("v2", "candidate", 0.25, "t.1", 1),
    Context("v1", "candidate", 0.25, "t.1", 1, "timeout", "timeout"),
)


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    """Any chunk that a worker can make of tensors of two features."""
    rows = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    many, lines = len(rows), sum(rows)
    number = st.integers(0, 1 << 40)
    numbers = st.lists(number, min_size=many, max_size=many)
    inputs = draw(st.sampled_from([(), X]))
    floats = st.floats(width=32, allow_nan=False)

    def raw(elements: int) -> bytes:
        values = draw(st.lists(floats, min_size=elements, max_size=elements))
        return np.array(values, np.float32).tobytes()

    other = None
    places: st.SearchStrategy[list[int]] = st.lists(st.integers(0, many - 1), unique=True)
    at = sorted(draw(places))
    coin = st.booleans()
    if draw(coin) and at:
        answered = [place for place in at if draw(coin)]
        outputs = Y if answered else ()
        raws = [raw(sum(rows[place] for place in answered))] if answered else []
        outcomes = ["ok" if place in answered else "error" for place in at]
        other = Other(at, ["v9"] * len(at), outcomes, [5000] * len(at), answered, outputs, raws)
    return Chunk(
        "m", draw(st.sampled_from([(), ("a", "b")])) if inputs else (), list(CONTEXTS),
        draw(st.lists(st.integers(0, len(CONTEXTS) - 1), min_size=many, max_size=many)),
        [f"r{draw(number)}" for _ in rows], rows,
        draw(st.integers(START, START + 5)) * 10**9, draw(numbers), draw(numbers), draw(numbers),
        draw(numbers),
        draw(st.none() | st.lists(st.none() | st.integers(0, (1 << 64) - 1), min_size=many,
                                  max_size=many)),
        inputs, [raw(lines * 2)] if inputs else [], Y, [raw(lines)], other,
    )  # fmt: skip


def lines_of(batches: list[pa.RecordBatch]) -> list[Any]:
    """Of all batches, in no order; a column that is not there is null."""
    found = [line for batch in batches for line in pa.Table.from_batches([batch]).to_pylist()]
    return sorted(
        sorted((name, repr(value)) for name, value in line.items() if value is not None)
        for line in found
    )


@settings(deadline=None)
@given(st.lists(chunks(), min_size=1, max_size=6))
def test_merged_chunks_make_the_same_lines(given_: list[Chunk]) -> None:
    """Joining them only saves time."""
    alone = lines_of([assemble(each, Privacy()) for each in given_])
    together = lines_of([assemble(each, Privacy()) for each in merge(given_)])
    assert together == alone
    assert len(alone) == sum(sum(each.rows) for each in given_)


@settings(deadline=None)
@given(chunks())
def test_every_batch_has_the_fixed_columns(given_: Chunk) -> None:
    """In their order and types, before those of the model."""
    batch = assemble(given_, Privacy())
    assert list(batch.schema)[: len(schema.fixed())] == list(schema.fixed())
    assert all(name.startswith(schema.DYNAMIC) for name in batch.schema.names[18:])
    batch.validate(full=True)


def test_durations_that_are_too_long_are_cut() -> None:
    """A column of 32 bits holds 35 minutes."""
    batch = assemble(chunk("a", latencies=[1 << 60]), Privacy())
    assert batch["latency_us"].to_pylist() == [(1 << 31) - 1]


@pytest.mark.parametrize(
    "more",
    [{"raws": [b"short"]}, {"output_raws": []}, {"rows": [2]}, {"context": [5]}, {"ids": []},
     {"inputs": (Layout("x", "NOPE", (2,)),)}, {"keys": [-1]}, {"times": []}],
)  # fmt: skip
def test_what_does_not_add_up_is_refused(more: dict[str, Any]) -> None:
    """Never written half."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever numpy and Arrow say
        assemble(chunk("a", **more), Privacy())


def test_wide_tensors_are_lists_unless_columns_of_them_are_named() -> None:
    """Then each is a column: what is redacted must not be within a list."""
    wide = FEATURES + 1
    names = tuple(f"f{at}" for at in range(wide))
    given_ = chunk(
        "a", features=names, inputs=(Layout("x", "FP64", (wide,)),),
        raws=[np.arange(float(wide)).tobytes()],
    )  # fmt: skip
    assert len(assemble(given_, Privacy())["input_x"][0]) == wide
    apart = assemble(given_, Privacy(redacted=("f7",)))
    assert "input_f7" not in apart.schema.names
    assert apart["input_f8"].to_pylist() == [8.0]
    assert "input_x" not in apart.schema.names
    unnamed = chunk("a", features=(), inputs=given_.inputs, raws=given_.raws)
    assert "input_x" in assemble(unnamed, Privacy(redacted=("f7",))).schema.names
    assert "input_x7" not in assemble(unnamed, Privacy(redacted=("x7",))).schema.names


def test_inputs_that_do_not_fit_their_names_are_not_kept() -> None:
    """Where some are secret: which of them is not known."""
    given_ = chunk(
        "a", features=("age", "ssn"), inputs=(Layout("x", "FP64", (3,)),),
        raws=[np.arange(3.0).tobytes()],
    )  # fmt: skip
    assert "input_x2" in assemble(given_, Privacy()).schema.names
    for privacy in (Privacy(redacted=("ssn",)), Privacy(columns=("age",)), Privacy(hashed=("b",))):
        names = assemble(given_, privacy).schema.names
        assert not [name for name in names if name.startswith("input_")]


def test_labels_follow_one_another() -> None:
    """Each a microsecond later, after all that came before: the last can be told."""
    batch = assemble_labels(Labels(5, [Label("a", 0, 1.0), Label("a", 0, text="x")]), after_us=9)
    assert batch.schema == schema.labels()
    assert [each.value for each in batch["received"]] == [10, 11]
    assert batch["label"].to_pylist() == [1.0, None]
    assert batch["label_text"].to_pylist() == [None, "x"]
