"""Unpacking archives that nobody should trust."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hotswap.errors import LoadError
from hotswap.sources.archive import UnpackLimits, unpack

Fill = Callable[[tarfile.TarFile], None]


@pytest.fixture
def into(tmp_path: Path) -> Iterator[Path]:
    """The target, beside a file that nothing may touch; afterwards it is as it was."""
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    target = tmp_path / "a" / "target"
    target.mkdir(parents=True)
    before = {path for path in tmp_path.rglob("*") if "target" not in path.parts}
    yield target
    after = {path for path in tmp_path.rglob("*") if not path.is_relative_to(target)}
    assert after - {tmp_path / "model.tar.gz"} == before | {target.parent}
    assert outside.read_text() == "untouched"


def pack(folder: Path, fill: Fill, **options: object) -> Path:
    path = folder / "model.tar.gz"
    with tarfile.open(path, "w:gz", **options) as tar:  # type: ignore[call-overload]
        fill(tar)
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = b"x", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content) if member.size and member.isreg() else None)


def test_an_ordinary_archive_is_unpacked(tmp_path: Path, into: Path) -> None:
    """Files, folders, a leading ``./``, a long name; dotfiles are left out."""
    long = "d" * 90 + "/" + "f" * 90 + "/model.bin"

    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "./", b"", type=tarfile.DIRTYPE)
        add(tar, "./model.onnx", b"model")
        add(tar, "code/", b"", type=tarfile.DIRTYPE)
        add(tar, "code/inference.py", b"pass")
        add(tar, "._model.onnx", b"resource fork")
        add(tar, ".git/HEAD", b"x")
        add(tar, long, b"long")
        add(tar, "empty", b"")

    unpack(pack(tmp_path, fill), into)
    files = {str(p.relative_to(into)): p.read_bytes() for p in into.rglob("*") if p.is_file()}
    assert files == {
        "model.onnx": b"model",
        "code/inference.py": b"pass",
        long: b"long",
        "empty": b"",
    }


HOSTILE_NAMES = [
    "../outside",
    "subdir/../../outside",
    "a/..",
    "..",
    "/etc/passwd",
    "//etc/passwd",
    "\\..\\..\\file",
    "..\\outside",
    "C:\\windows\\x",
    "C:x",
    "a\nb",
    "a\x1b[2Jb",
    "\u202ex",
    "x" * 2000,
    "",
    ".",
]


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=ascii)
def test_hostile_names_are_refused(tmp_path: Path, into: Path, name: str, format_: int) -> None:
    """Nothing is written for them, inside or outside."""
    path = pack(tmp_path, lambda tar: add(tar, name), format=format_)
    with pytest.raises(LoadError) as caught:
        unpack(path, into)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert list(into.iterdir()) == []


def test_a_nul_in_a_pax_name_is_refused(tmp_path: Path, into: Path) -> None:
    """Extended headers may say what plain ones cannot."""
    path = pack(
        tmp_path, lambda tar: add(tar, "x", pax_headers={"path": "model\x00.onnx"}), format=2
    )
    with pytest.raises(LoadError):
        unpack(path, into)
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "model.onnx"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_refused_wherever_they_point(
    tmp_path: Path, into: Path, kind: bytes, target: str
) -> None:
    """Symbolic and hard; the member is named."""

    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "model.onnx")
        add(tar, "link", b"", type=kind, linkname=target)
        add(tar, "link/file")

    with pytest.raises(LoadError, match="'link' is a link"):
        unpack(pack(tmp_path, fill), into)
    assert not os.path.lexists(into / "link")


@pytest.mark.parametrize(
    "kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"Z"]
)
def test_special_members_are_refused(tmp_path: Path, into: Path, kind: bytes) -> None:
    """Devices, pipes and types that nobody knows."""
    with pytest.raises(LoadError, match="'odd' is neither a plain file nor a folder"):
        unpack(pack(tmp_path, lambda tar: add(tar, "odd", b"", type=kind)), into)
    assert list(into.iterdir()) == []


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a"],
        ["a", "./a"],
        ["a/b", "a//b"],
        ["a", "a/b"],
        ["a/b", "a"],
        ["a/b/c", "a/b"],
    ],
)
def test_a_name_may_be_given_once(tmp_path: Path, into: Path, names: list[str]) -> None:
    """The second of two members is not silently the one that counts."""

    def fill(tar: tarfile.TarFile) -> None:
        for name in names:
            add(tar, name)

    with pytest.raises(LoadError, match="twice, or as a file and as a folder"):
        unpack(pack(tmp_path, fill), into)


def test_too_many_members_are_refused(tmp_path: Path, into: Path) -> None:
    """The count is bounded."""

    def fill(tar: tarfile.TarFile) -> None:
        for number in range(11):
            add(tar, f"{number}", b"")

    with pytest.raises(LoadError, match="more than 10 members"):
        unpack(pack(tmp_path, fill), into, UnpackLimits(members=10))


def test_a_bomb_stops_at_the_size_limit(tmp_path: Path, into: Path) -> None:
    """What is written stays within the limit, whatever the headers say."""
    path = pack(tmp_path, lambda tar: add(tar, "model.bin", bytes(5_000_000)))
    with pytest.raises(LoadError, match="unpacks to more than 1000000 bytes"):
        unpack(path, into, UnpackLimits(total_bytes=1_000_000))
    assert sum(p.stat().st_size for p in into.rglob("*")) <= 1_000_000


def test_a_bomb_stops_at_the_ratio_limit(tmp_path: Path, into: Path) -> None:
    """Zeros compress a thousandfold; models do not."""
    path = pack(tmp_path, lambda tar: add(tar, "model.bin", bytes(5_000_000)))
    with pytest.raises(LoadError, match="more than 200 times its compressed size"):
        unpack(path, into, UnpackLimits(ratio_from=1_000_000))


def test_a_huge_extended_header_is_not_read_into_memory(tmp_path: Path, into: Path) -> None:
    """An extended header that claims gigabytes is refused by its size alone."""
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE):
        header = tarfile.TarInfo("x")
        header.type = kind
        header.size = 8 * 1024**3
        data = header.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
        (tmp_path / "model.tar.gz").write_bytes(gzip.compress(data))
        with pytest.raises(LoadError, match="member header of 8589934592 bytes"):
            unpack(tmp_path / "model.tar.gz", into)


@pytest.mark.parametrize("name", [".hidden", "model.bin"])
def test_a_member_larger_than_may_come_is_refused_at_once(
    tmp_path: Path, into: Path, name: str
) -> None:
    """By its header alone, plain or extended: to skip what is not there would take for ever."""
    plain = tarfile.TarInfo(name)
    plain.size = 10**15
    small = tarfile.TarInfo(name)
    small.pax_headers = {"size": str(10**15)}
    for data in (plain.tobuf(tarfile.GNU_FORMAT), small.tobuf(tarfile.PAX_FORMAT)):
        (tmp_path / "model.tar.gz").write_bytes(gzip.compress(data + bytes(1024)))
        with pytest.raises(LoadError, match="unpacks to more than 200 times its compressed size"):
            unpack(tmp_path / "model.tar.gz", into)
    assert list(into.iterdir()) == []


def test_a_chain_of_extended_headers_is_refused(tmp_path: Path, into: Path) -> None:
    """Each is read within the one before it, as deep as the stack goes."""
    link = tarfile.TarInfo("x")
    link.type = tarfile.GNUTYPE_LONGNAME
    data = link.tobuf(tarfile.GNU_FORMAT) * 5000 + bytes(1024)
    (tmp_path / "model.tar.gz").write_bytes(gzip.compress(data))
    with pytest.raises(LoadError, match="is damaged"):
        unpack(tmp_path / "model.tar.gz", into)


def test_a_size_just_within_the_limit_is_taken(tmp_path: Path, into: Path) -> None:
    """What was read ahead of a member does not count against it."""
    path = pack(tmp_path, lambda tar: add(tar, "model.bin", bytes(9216 - 512)))
    unpack(path, into, UnpackLimits(total_bytes=10240))
    assert (into / "model.bin").stat().st_size == 9216 - 512


def test_sparse_members_are_refused(tmp_path: Path, into: Path) -> None:
    """A few bytes may not claim to be a terabyte."""
    headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(2**40),
        "GNU.sparse.numblocks": "1",
        "GNU.sparse.map": "0,1",
    }
    path = pack(tmp_path, lambda tar: add(tar, "odd", pax_headers=headers), format=2)
    with pytest.raises(LoadError, match="neither a plain file nor a folder"):
        unpack(path, into)


def test_another_format_under_the_name_is_refused(tmp_path: Path, into: Path) -> None:
    """The content decides and not the name; there is no second attempt with another reader."""
    path = tmp_path / "model.tar.gz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.onnx", b"x")
    with pytest.raises(LoadError, match="is not gzip"):
        unpack(path, into)
    for content in (pickle.dumps([1]), b"", b"\x1f", b"BZh9", gzip.compress(pickle.dumps([1]))):
        path.write_bytes(content)
        with pytest.raises(LoadError, match="gz"):
            unpack(path, into)
    assert list(into.iterdir()) == []


def test_every_truncation_is_noticed(tmp_path: Path, into: Path) -> None:
    """A half-copied archive is never taken for a whole one."""

    def fill(tar: tarfile.TarFile) -> None:
        for number in range(3):
            add(tar, f"file{number}", random.Random(number).randbytes(700))

    path = pack(tmp_path, fill)
    whole = path.read_bytes()
    for length in range(0, len(whole), 23):
        path.write_bytes(whole[:length])
        target = into / str(length)
        target.mkdir()
        with pytest.raises(LoadError):
            unpack(path, target)


def test_a_tar_that_was_cut_before_compression_is_noticed(tmp_path: Path, into: Path) -> None:
    """The gzip layer is whole, but the members are not."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        add(tar, "a", b"a" * 600)
        add(tar, "b", b"b" * 600)
    path = tmp_path / "model.tar.gz"
    for length in (512, 1000, 1536, 1700, 2048, 3000):
        path.write_bytes(gzip.compress(plain.getvalue()[:length]))
        target = into / str(length)
        target.mkdir()
        with pytest.raises(LoadError):
            unpack(path, target)


def test_noise_is_always_a_load_error(tmp_path: Path, into: Path) -> None:
    """Flipped bytes in the tar stream never raise anything else, nor write outside."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "model.onnx", b"m" * 100, pax_headers={"comment": "é" * 200})
        add(tar, "long/" + "n" * 150)
    chance = random.Random(1)
    for attempt in range(300):
        data = bytearray(plain.getvalue())
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(4096)] = chance.randrange(256)
        (tmp_path / "model.tar.gz").write_bytes(gzip.compress(data, compresslevel=1))
        target = into / str(attempt)
        target.mkdir()
        try:
            unpack(tmp_path / "model.tar.gz", target)
        except LoadError:
            continue
        assert all(path.resolve().is_relative_to(target) for path in target.rglob("*"))


def test_an_unreadable_archive_is_told(tmp_path: Path, into: Path) -> None:
    """A missing file is named."""
    with pytest.raises(LoadError, match=r"^none\.tgz cannot be read"):
        unpack(tmp_path / "none.tgz", into)
