"""Copying an artifact while hashing it, and noticing when somebody is still writing it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from hotswap.core.spec import ManifestEntry
from hotswap.errors import LoadError
from hotswap.sources.manifest import READ, WINDOWS, FileSeen, hash_file

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""

_CHUNK: Final = 1024 * 1024
_FICLONE: Final = 0x40049409
_CREATE: Final = READ | os.O_RDWR | os.O_CREAT | os.O_EXCL  # O_RDONLY is 0


def copy_files(
    source: Path, files: Sequence[FileSeen], into: Path, progress: Progress | None = None
) -> list[ManifestEntry]:
    """Copy ``files`` of ``source`` into the empty folder ``into``; what was copied, hashed.

    The copies are read-only and on the disk when this returns. Large files are cloned where
    the file system can share their blocks. Raises `LoadError` if a file is not what ``files``
    says (it is being written); `OSError` about ``into`` is left to the caller.
    """
    total = sum(seen.size for seen in files)
    done = 0
    made: set[str] = {""}
    entries = []
    for seen in files:
        folder = seen.path.rpartition("/")[0]
        if folder not in made:
            (into / folder).mkdir(parents=True, exist_ok=True)
            made.add(folder)
        entries.append(_copy_one(source, seen, into))
        done += seen.size
        if progress is not None:
            progress(done, total)
    return entries


def _copy_one(source: Path, seen: FileSeen, into: Path) -> ManifestEntry:
    try:
        reader = os.open(os.path.join(source, seen.path), READ)
    except OSError as error:
        raise LoadError(f"{seen.path} cannot be read: {error.strerror or error}") from error
    try:
        _check_unchanged(os.fstat(reader), seen)
        writer = os.open(os.path.join(into, seen.path), _CREATE, 0o600)
        try:
            digest = _clone(reader, writer, seen) or _stream(reader, writer, seen)
            _check_unchanged(os.fstat(reader), seen)
            _protect(writer)
            os.fsync(writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
    return ManifestEntry(seen.path, seen.size, digest)


def _clone(reader: int, writer: int, seen: FileSeen) -> str | None:
    """Share the file's blocks if the file system can; the sha256 of the clone, or None."""
    if seen.size < _CHUNK:
        return None
    try:
        import fcntl

        fcntl.ioctl(writer, _FICLONE, reader)
    except (ImportError, OSError):
        return None
    if os.fstat(writer).st_size != seen.size:
        raise being_written(seen.path)
    with open(writer, "rb", buffering=0, closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stream(reader: int, writer: int, seen: FileSeen) -> str:
    digest = hashlib.sha256()
    left = seen.size
    while chunk := os.read(reader, min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise being_written(seen.path)
        digest.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(writer, view) :]
    if left:
        raise being_written(seen.path)
    return digest.hexdigest()


def _check_unchanged(info: os.stat_result, seen: FileSeen) -> None:
    same = (info.st_size, info.st_mtime_ns, info.st_dev, info.st_ino) == (
        seen.size,
        seen.mtime_ns,
        seen.device,
        seen.inode,
    )
    if not same or not stat.S_ISREG(info.st_mode):
        raise being_written(seen.path)


def being_written(path: str) -> LoadError:
    """The error of a source that changed while it was read."""
    return LoadError(f"{path} is being written: try again when it is complete")


def hash_files(
    folder: Path, files: Sequence[FileSeen], progress: Progress | None = None
) -> list[ManifestEntry]:
    """Hash ``files`` where they are. Raises `LoadError` if one is not what ``files`` says."""
    total = sum(seen.size for seen in files)
    done = 0
    entries = []
    for seen in files:
        size, digest = hash_file(folder, seen.path)
        if size != seen.size:
            raise being_written(seen.path)
        entries.append(ManifestEntry(seen.path, size, digest))
        done += size
        if progress is not None:
            progress(done, total)
    return entries


def settle(folder: Path) -> None:
    """Make everything below ``folder`` read-only files, and bring it all to the disk."""
    if WINDOWS:  # nothing can be synced there that is not open for writing
        return
    for above, _, names in os.walk(folder, topdown=False):
        for name in names:
            descriptor = os.open(os.path.join(above, name), READ)
            try:
                _protect(descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(above))


def _protect(descriptor: int) -> None:
    """Make an open file read-only. On Windows such a file could not be removed either."""
    if not WINDOWS:
        os.fchmod(descriptor, 0o444)


def sync_folder(folder: Path) -> None:
    """Bring a folder's own entries to the disk."""
    if WINDOWS:  # it opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
