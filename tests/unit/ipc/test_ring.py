"""A ring between one process that writes and one that reads."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotswap.ipc import ring as rings
from hotswap.ipc.ring import Ring, fitting

HEADER = 4096


@pytest.fixture(params=[False, True], ids=["marked", "checked"], autouse=True)
def checked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether processors may show a reader the head before the bytes."""
    monkeypatch.setattr(rings, "CHECKED", request.param)
    return bool(request.param)


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring.create(tmp_path / "0.0", 256)


def drain(ring: Ring, *, wipe: bool = False) -> list[bytes]:
    """Everything that is in it, released."""
    found = []
    for chunk, position in ring.chunks():
        found.append(bytes(chunk))
        ring.release(position, wipe)
    return found


def test_what_is_put_in_comes_out_once_and_in_order(ring: Ring) -> None:
    """Parts are joined; what was released does not come again."""
    assert ring.put([b"a", b"bc"], 1)
    assert ring.put([b""], 1)
    assert drain(ring) == [b"abc", b""]
    assert drain(ring) == []


def test_chunks_do_not_wrap(ring: Ring) -> None:
    """One that does not fit before the end begins at the start; positions go on."""
    seen = []
    for number in range(50):
        assert ring.put([bytes([number]) * 90], 1)
        seen += drain(ring)
    assert seen == [bytes([number]) * 90 for number in range(50)]
    assert ring.position > 40 * 98


def test_a_full_ring_drops_and_counts(ring: Ring) -> None:
    """What was in it stays whole; there is room again once it is released."""
    assert ring.put([b"x" * 120], 7)
    assert ring.put([b"y" * 100], 5)
    assert not ring.put([b"z" * 100], 3)
    assert not ring.put([b"z" * 300], 2)
    assert ring.dropped == 5
    assert drain(ring) == [b"x" * 120, b"y" * 100]
    assert ring.put([b"z" * 100], 3)
    assert ring.dropped == 5


def test_a_writer_that_comes_back_takes_over(tmp_path: Path) -> None:
    """Its predecessor's chunks are still there, and the reader goes on where it was."""
    first = Ring.create(tmp_path / "0.0", 256)
    first.put([b"one"], 1)
    reader = Ring(tmp_path / "0.0")
    first.put([b"two"], 1)
    second = Ring.create(tmp_path / "0.0", 1024)
    assert second.size == 256
    second.put([b"three"], 1)
    chunks = reader.chunks()
    _, position = next(chunks)
    reader.release(position)
    assert drain(Ring(tmp_path / "0.0")) == [b"two", b"three"]


def test_a_chunk_whose_bytes_are_not_there_yet_is_not_read(
    ring: Ring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither it nor what lies behind it, until they are."""
    monkeypatch.setattr(rings, "CHECKED", True)
    ring.put([b"first"], 1)
    at = HEADER + ring.position + 16
    ring.put([b"second"], 1)
    ring.put([b"third"], 1)
    with open(tmp_path / "0.0", "r+b") as file:
        file.seek(at + 8)
        file.write(b"?")
    assert drain(ring) == [b"first"]
    assert ring.filled == 32
    with open(tmp_path / "0.0", "r+b") as file:
        file.seek(at + 8)
        file.write(b"s")
    assert drain(ring) == [b"second", b"third"]


def test_a_chunk_whose_prefix_is_not_there_yet_is_not_read(ring: Ring, tmp_path: Path) -> None:
    """A ring's room is zeros at first, and again once it was wiped."""
    ring.put([b"first"], 1)
    with open(tmp_path / "0.0", "r+b") as file:
        file.seek(HEADER)
        prefix = file.read(8)
        file.seek(HEADER)
        file.write(bytes(8))
    assert drain(ring) == []
    with open(tmp_path / "0.0", "r+b") as file:
        file.seek(HEADER)
        file.write(prefix)
    assert drain(ring) == [b"first"]


@pytest.mark.parametrize("length", [1 << 20, 0xFFFF_FFFE, 249])
def test_a_length_that_cannot_be_is_not_followed(ring: Ring, tmp_path: Path, length: int) -> None:
    """It would lead out of the ring."""
    ring.put([b"first"], 1)
    with open(tmp_path / "0.0", "r+b") as file:
        file.seek(HEADER)
        file.write(struct.pack("<I", length))
    assert drain(ring) == []
    ring.skip()
    assert (ring.filled, drain(ring)) == (0, [])
    assert ring.put([b"second"], 1)
    assert drain(ring) == [b"second"]


def test_what_is_wiped_is_gone_from_the_file(tmp_path: Path) -> None:
    """And nothing that was put in meanwhile."""
    ring = Ring.create(tmp_path / "0.0", 256)
    for number in range(20):
        ring.put([b"secret", bytes([number]) * 50], 1)
        if number % 2:
            assert len(drain(ring, wipe=True)) == 2
            assert b"secret" not in (tmp_path / "0.0").read_bytes()[HEADER:]
    ring.put([b"kept"], 1)
    assert drain(ring) == [b"kept"]


def test_a_reader_says_that_it_keeps_nothing(tmp_path: Path, ring: Ring) -> None:
    """And that it does again."""
    reader = Ring(tmp_path / "0.0")
    for losing in (False, True, False):
        reader.lose(losing)
        assert ring.losing is losing


def test_beats_are_the_writers_own(ring: Ring) -> None:
    """Putting in something does not say that everything was."""
    assert ring.written_at == 0
    ring.put([b"x"], 1)
    assert ring.written_at == 0
    ring.settle(5)
    assert ring.written_at == 5


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"x" * 5000])
def test_what_is_no_ring_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    """A reader raises, a writer makes one in its place."""
    (tmp_path / "0.0").write_bytes(content)
    with pytest.raises(ValueError, match="is no ring"):
        Ring(tmp_path / "0.0")
    assert Ring.create(tmp_path / "0.0", 256).put([b"x"], 1)


def test_a_ring_leaves_room_for_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is scarce it is smaller, or none; nothing half-made stays."""

    class Usage:
        free = 1 << 40

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    assert fitting(tmp_path) == rings.SIZE
    Usage.free = 64 << 20
    assert fitting(tmp_path) == 8 << 20
    Usage.free = 4 << 20
    with pytest.raises(OSError, match="No space left"):
        Ring.create(tmp_path / "0.0")
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(0, 130).map(lambda n: ("put", n)), st.just(("drain", 0)),
                  st.just(("read one", 0)), st.just(("reopen", 0))),
        max_size=60,
    )
)  # fmt: skip
def test_every_chunk_comes_out_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever is done in whatever order; what found no room was counted."""
    path = tmp_path_factory.mktemp("ring") / "0.0"
    writer = Ring.create(path, 256)
    reader = Ring(path)
    taken, given_, refused = [], [], 0
    for number, (what, size) in enumerate(steps):
        content = number.to_bytes(2, "little") + b"." * size
        if what == "put":
            if writer.put([content[:1], content[1:]], 1):
                given_.append(content)
            else:
                refused += 1
        elif what == "drain":
            taken += drain(reader, wipe=bool(number % 2))
        elif what == "read one":
            for chunk, position in reader.chunks():
                taken.append(bytes(chunk))
                reader.release(position)
                break
        else:
            reader = Ring(path)
    taken += drain(reader)
    assert taken == given_
    assert writer.dropped == refused
