"""What must not be kept is nowhere on the disk."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from hotswap.ipc.frames import Layout, encode_bytes
from hotswap.records import dataset
from hotswap.records.privacy import Privacy
from tests.unit.records.recorded import Keeping, chunk

SECRET = 98765.4321
RAW = struct.pack("<d", SECRET)
NAME = b"Ada Lovelace"


Keeps = Callable[..., Keeping]


def kept(keeps: Keeps, privacy: Privacy) -> Keeping:
    """A number and a text, in the segment, the compacted file and what is left of the ring."""
    keeping = keeps(privacy=privacy)
    text = np.array([NAME], object)
    layouts = (Layout("age", "FP64", ()), Layout("name", "BYTES", ()), Layout("zip", "INT64", ()))
    raws = [RAW, encode_bytes(text), np.array([8001]).tobytes()]
    keeping.put(chunk("a", inputs=layouts, raws=raws, features=()))
    assert keeping.drain() == 1
    return keeping


def columns(keeping: Keeping) -> dict[str, str]:
    with dataset.open(keeping.root, "m") as opened:
        return {k: v for k, v in opened.columns.items() if k.startswith("input_")}


def test_a_redacted_column_is_nowhere(keeps: Keeps) -> None:
    """Neither in segments nor in compacted files, nor in the ring once it is written."""
    keeping = kept(keeps, Privacy(redacted=("age", "name")))
    assert RAW not in keeping.bytes()
    assert NAME not in keeping.bytes()
    keeping.compact()
    assert columns(keeping) == {"input_zip": "BIGINT"}
    assert RAW not in keeping.bytes()
    assert NAME not in keeping.bytes()


def test_a_hashed_column_is_a_number_alone(keeps: Keeps) -> None:
    """Equal for equal values under one secret, another under another."""
    keeping = kept(keeps, Privacy(hashed=("age", "name"), secret=b"s" * 32))
    for _ in range(2):
        assert columns(keeping) == {
            "input_age": "UBIGINT", "input_name": "UBIGINT", "input_zip": "BIGINT",
        }  # fmt: skip
        assert RAW not in keeping.bytes()
        assert NAME not in keeping.bytes()
        keeping.compact()
    ((age, name),) = keeping.ask("SELECT input_age, input_name FROM records")
    same = Privacy(secret=b"s" * 32)
    assert [age] == same.hash(np.array([SECRET])).tolist()
    assert [name] == same.hash(np.array([NAME], object)).tolist()
    assert [name] != Privacy(secret=b"t" * 32).hash(np.array([NAME], object)).tolist()


def test_only_the_named_columns_are_kept(keeps: Keeps) -> None:
    """And those that are hashed."""
    keeping = kept(keeps, Privacy(columns=("zip",), hashed=("age",)))
    assert sorted(columns(keeping)) == ["input_age", "input_zip"]
    assert NAME not in keeping.bytes()


def test_no_inputs_at_all(keeps: Keeps) -> None:
    """The outputs are kept."""
    keeping = kept(keeps, Privacy(columns=()))
    assert columns(keeping) == {}
    assert keeping.ask("SELECT output_predict FROM records") == [(0,)]


@pytest.mark.parametrize("features", [(), ("age", "income")])
def test_what_is_said_of_a_tensor_is_said_of_its_columns(
    keeps: Keeps, features: tuple[str, ...]
) -> None:
    """They lie on disk by their own names, which need not be known."""
    for number, privacy in enumerate(
        (Privacy(redacted=("x",)), Privacy(hashed=("x",)), Privacy(columns=("x",)))
    ):
        keeping = keeps(privacy=privacy)
        keeping.put(chunk("a", value=SECRET, features=features))
        keeping.drain()
        assert (RAW in keeping.bytes()) == (number == 2)
        assert len(columns(keeping)) == (0, 2, 2)[number]


def test_values_of_several_elements_are_hashed_together() -> None:
    """What lies on either side of a border is not the same."""
    privacy = Privacy(secret=b"s")
    pairs = np.array([[b"a\0", b"b"], [b"a", b"\0b"], [b"a\0", b"b"]], object)
    one, other, same = privacy.hash(pairs).tolist()
    assert one == same != other
