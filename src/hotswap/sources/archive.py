"""Unpacking ``model.tar.gz`` without trusting it.

Only plain files and folders are accepted, each name once, all of them inside the target. A
member is judged before anything is written for it; the standard library's own ``data`` filter
is the second line. The compressed stream is counted as it is read, so a bomb stops early.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from pathlib import Path
from typing import Any, Final

import msgspec

from hotswap.errors import LoadError
from hotswap.sources.manifest import check_member, ignored

SUFFIXES: Final = (".tar.gz", ".tgz")
_LONGEST_PATH: Final = 1024
_EXTENDED: Final = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LARGEST_HEADER: Final = 1024 * 1024
_PLAIN: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
#: What the readers raise; they recurse into a chain of extended headers.
_DAMAGES: Final = (
    tarfile.TarError,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    ValueError,
    RecursionError,
)


class UnpackLimits(msgspec.Struct, frozen=True):
    """What an archive may hold. Sizes in bytes; ``ratio`` (decompressed to compressed) counts
    from ``ratio_from`` decompressed bytes on, since small files of zeros compress well.
    """

    members: int = 100_000
    total_bytes: int = 64 * 1024**3
    ratio: int = 200
    ratio_from: int = 64 * 1024**2


DEFAULT: Final = UnpackLimits()


def is_archive(path: Path) -> bool:
    """Whether its name says that it is an archive that `unpack` reads."""
    return path.name.endswith(SUFFIXES)


def unpack(archive: Path, into: Path, limits: UnpackLimits = DEFAULT) -> None:
    """Unpack ``archive`` into the existing empty folder ``into``.

    Members whose names are ignored in artifacts (dotfiles, ``__pycache__``) are checked but not
    written. Raises `LoadError` naming the member that is refused; what was written before it
    stays in ``into`` for the caller to remove. `OSError` (no space) is left to the caller.
    """
    try:
        opened = archive.open("rb")
    except OSError as error:
        raise LoadError(f"{archive.name} cannot be read: {error.strerror or error}") from error
    try:
        with opened as raw:
            compressed = os.fstat(raw.fileno()).st_size
            if raw.read(2) != b"\x1f\x8b":
                raise LoadError(f"{archive.name} is not gzip: pack it with 'tar -czf'")
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) as stream:
                counted = _Counted(stream, archive.name, compressed, limits)
                _unpack_stream(counted, archive.name, into, limits)
    except _DAMAGES as error:
        raise LoadError(
            f"{archive.name} is damaged or not a gzipped tar file ({error}): pack it again"
        ) from error


def _unpack_stream(stream: _Counted, name: str, into: Path, limits: UnpackLimits) -> None:
    header = _header_class(name)
    files: set[str] = set()
    folders: set[str] = set()
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=header, errorlevel=2) as tar:  # type: ignore[call-overload]
        for count, member in enumerate(tar, start=1):
            if count > limits.members:
                raise LoadError(f"{name} has more than {limits.members} members")
            path = _checked(member)
            # Before it is skipped: tarfile skips by reading, on and on after the stream's end.
            stream.check(member.offset_data + member.size)
            if path == "":
                continue
            _check_new(path, member.isdir(), files, folders)
            if any(ignored(part) for part in path.split("/")):
                continue
            plain = tarfile.data_filter(member.replace(name=path, deep=False), os.fspath(into))
            tar.extract(plain, into, set_attrs=False, filter="data")
    if not header.ended:
        raise LoadError(f"{name} is cut short: pack it again")
    while stream.read(1024 * 1024):  # the gzip checksum is at the very end
        pass


class _Counted:
    """A stream that raises once more came out of it than may."""

    def __init__(
        self, stream: gzip.GzipFile, name: str, compressed: int, limits: UnpackLimits
    ) -> None:
        self._stream = stream
        self._name = name
        self._read = 0
        self._most = limits.total_bytes
        by_ratio = max(limits.ratio_from, compressed * limits.ratio)
        self._why = f"{limits.total_bytes} bytes"
        if by_ratio < self._most:
            self._most = by_ratio
            self._why = f"{limits.ratio} times its compressed size"

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._read += len(data)
        self.check(self._read)
        return data

    def check(self, size: int) -> None:
        """Raise if ``size`` is more than may come out in all."""
        if size > self._most:
            raise LoadError(f"{self._name} unpacks to more than {self._why}")


def _header_class(archive: str) -> Any:
    """A header reader that is strict where tarfile is lenient.

    Tarfile takes a broken header after the first for the end of the archive, and reads a
    member's extended header whole, whatever its size says.
    """

    class Header(tarfile.TarInfo):
        ended = False

        @classmethod
        def frombuf(cls, buf: Any, encoding: Any, errors: Any) -> Any:
            try:
                header = super().frombuf(buf, encoding, errors)
            except tarfile.HeaderError as error:
                if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                    Header.ended = True
                    raise
                raise LoadError(f"{archive} is damaged ({error}): pack it again") from None
            if header.type in _EXTENDED and not 0 <= header.size <= _LARGEST_HEADER:
                raise LoadError(f"{archive} has a member header of {header.size} bytes")
            if header.size < 0:
                raise LoadError(f"{archive} has a member of {header.size} bytes")
            return header

    return Header


def _checked(member: tarfile.TarInfo) -> str:
    """The member's path, normalised ("" for the top folder itself)."""
    shown = ascii(member.name[:200])
    if member.issym() or member.islnk():
        raise LoadError(f"the archive's member {shown} is a link: pack the file itself")
    if member.type not in _PLAIN or member.issparse():
        raise LoadError(f"the archive's member {shown} is neither a plain file nor a folder")
    if len(member.name) > _LONGEST_PATH:
        raise LoadError(f"the archive's member {shown}... has a name longer than {_LONGEST_PATH}")
    check_member(member.name)
    path = "/".join(part for part in member.name.split("/") if part not in ("", "."))
    check_member(path)
    if not path and not member.isdir():
        raise LoadError(f"the archive's member {shown} has no name")
    return path


def _check_new(path: str, is_folder: bool, files: set[str], folders: set[str]) -> None:
    parts = path.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts))]
    clash = path in files or (path in folders and not is_folder)
    if clash or any(parent in files for parent in above):
        raise LoadError(f"the archive has {path!a} twice, or as a file and as a folder")
    folders.update(above)
    (folders if is_folder else files).add(path)
