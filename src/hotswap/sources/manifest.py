"""What files an artifact consists of, and whether they are still the ones that were registered.

An artifact's digest is that of its manifest: every file's path, size and sha256. Not part of an
artifact, and never copied: names that start with a dot (``.git``, ``.DS_Store``) and
``__pycache__``. Verified at each load, so nothing heavy is imported here.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from hotswap.core.spec import Artifact, ManifestEntry
from hotswap.errors import DigestMismatch, LoadError

MOST_FILES: Final = 200_000
_DEEPEST: Final = 64
_SMALL: Final = 256 * 1024
#: How an artifact's file is opened to be read, with what this system has of it.
READ: Final = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)
#: Where listing a folder tells no file's identity, and a folder cannot be opened.
WINDOWS: bool = os.name == "nt"


class FileSeen(msgspec.Struct, frozen=True, array_like=True):
    """One file in a folder as the file system tells of it, without reading it.

    ``path`` is relative, with ``/``; ``links`` the number of names the file has.
    """

    path: str
    size: int
    mtime_ns: int
    device: int
    inode: int
    links: int


def ignored(name: str) -> bool:
    """Whether a file or folder of that name is no part of an artifact."""
    return name.startswith(".") or name == "__pycache__"


def list_files(folder: Path) -> list[FileSeen]:
    """Every file of the artifact in ``folder``, by path; nothing is opened or followed.

    Raises `LoadError` naming what cannot be part of an artifact: a symbolic link, a device, a
    name with a backslash or a control character; or a folder that cannot be read.
    """
    found: list[FileSeen] = []
    try:
        for seen in _walk(os.fspath(folder), "", 0):
            found.append(seen)
            if len(found) > MOST_FILES:
                raise LoadError(f"the artifact has more than {MOST_FILES} files")
    except OSError as error:
        where = _inside(folder, error.filename)
        raise LoadError(f"{where} cannot be read: {error.strerror or error}") from error
    found.sort(key=lambda seen: seen.path)
    return found


def _walk(root: str, below: str, depth: int) -> Iterator[FileSeen]:
    if depth > _DEEPEST:
        raise LoadError(f"the artifact's folders are more than {_DEEPEST} deep")
    with os.scandir(os.path.join(root, below) if below else root) as entries:
        for entry in entries:
            name = entry.name
            if ignored(name):
                continue
            path = f"{below}/{name}" if below else name
            check_member(path)
            if entry.is_symlink():
                raise LoadError(f"{path} is a symbolic link: put the file itself into the artifact")
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, path, depth + 1)
                continue
            info = (
                os.stat(entry.path, follow_symlinks=False)
                if WINDOWS
                else entry.stat(follow_symlinks=False)
            )
            if not stat.S_ISREG(info.st_mode):
                raise LoadError(f"{path} is neither a file nor a folder: remove it")
            yield FileSeen(
                path, info.st_size, info.st_mtime_ns, info.st_dev, info.st_ino, info.st_nlink
            )


def check_member(path: str) -> None:
    """Refuse a relative path that is not plain everywhere: ``..``, ``\\``, control characters.

    Raises `LoadError` naming it.
    """
    if path.isascii() and path.isprintable():
        plain = "\\" not in path and ":" not in path[1:2]
    else:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise LoadError(f"{path!a} is not a valid file name: it is not UTF-8") from None
        plain = path.isprintable() and "\\" not in path
    if not plain or path.startswith("/") or ".." in path.split("/"):
        raise LoadError(
            f"{path!a} is not a valid file name in an artifact: use a relative path without "
            "'..', backslashes, drive letters and control characters"
        )


def refuse_outside_links(files: Sequence[FileSeen]) -> None:
    """Refuse a file that has further names (hard links) outside of these files.

    Whoever holds the other name could change the artifact. Raises `LoadError` naming the file.
    """
    linked = [seen for seen in files if seen.links > 1]
    inside: dict[tuple[int, int], int] = {}
    for seen in linked:
        inside[seen.device, seen.inode] = inside.get((seen.device, seen.inode), 0) + 1
    for seen in linked:
        if inside[seen.device, seen.inode] < seen.links:
            raise LoadError(
                f"{seen.path} is hard-linked from outside of the artifact: copy the file instead"
            )


def build_manifest(folder: Path) -> tuple[ManifestEntry, ...]:
    """Read and hash every file in ``folder``; entries by path.

    Raises `LoadError` as `list_files` and `refuse_outside_links` do, and for an empty folder.
    """
    files = list_files(folder)
    if not files:
        raise LoadError(f"there is no file in {folder.name}")
    refuse_outside_links(files)
    entries = []
    for seen in files:
        size, digest = hash_file(folder, seen.path)
        entries.append(ManifestEntry(seen.path, size, digest))
    return tuple(entries)


def hash_file(folder: Path, path: str) -> tuple[int, str]:
    """The size in bytes and the sha256 (hex) of one file of an artifact; links are not followed."""
    try:
        descriptor = os.open(os.path.join(folder, path), READ)
        try:
            size = os.fstat(descriptor).st_size
            if size <= _SMALL:  # one read call is several times faster than file_digest here
                content = _read_all(descriptor, size)
                return len(content), hashlib.sha256(content).hexdigest()
            with open(descriptor, "rb", buffering=0, closefd=False) as file:
                return size, hashlib.file_digest(file, "sha256").hexdigest()
        finally:
            os.close(descriptor)
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_all(descriptor: int, size: int) -> bytes:
    content = os.read(descriptor, size + 1)
    while more := os.read(descriptor, _SMALL):
        content += more
    return content


def digest_of(manifest: Iterable[ManifestEntry]) -> str:
    """``sha256:<hex>`` of the manifest: of the compact JSON list of [path, size, sha256] by path.

    >>> digest_of([ManifestEntry("a", 0, "x"), ManifestEntry("b", 1, "y")]) == digest_of(
    ...     [ManifestEntry("b", 1, "y"), ManifestEntry("a", 0, "x")]
    ... )
    True
    """
    entries = sorted(manifest, key=lambda entry: entry.path)
    return "sha256:" + hashlib.sha256(msgspec.json.encode(entries)).hexdigest()


def verify(artifact: Artifact) -> None:
    """Prove that the artifact on disk is the one that was registered.

    Raises `DigestMismatch` naming the first file that is missing, added or changed (sizes are
    compared before anything is read), and `LoadError` for what cannot be read.
    """
    folder = Path(artifact.folder)
    if digest_of(artifact.manifest) != artifact.digest:
        raise DigestMismatch(
            f"the manifest does not have the registered digest {artifact.digest}: register it again"
        )
    if not folder.is_dir():
        raise DigestMismatch("the artifact's folder is gone: register the version again")
    wanted = {entry.path: entry for entry in artifact.manifest}
    present = {seen.path: seen for seen in list_files(folder)}
    for path in wanted:
        if path not in present:
            raise DigestMismatch(f"{path} is missing: register the version again")
    for path, seen in present.items():
        if path not in wanted:
            raise DigestMismatch(f"{path} was added after the version was registered: remove it")
        if seen.size != wanted[path].size:
            raise DigestMismatch(
                f"{path} has {seen.size} bytes, not the {wanted[path].size} that were registered"
            )
    for path, entry in wanted.items():
        if hash_file(folder, path) != (entry.size, entry.sha256):
            raise DigestMismatch(f"{path} was changed after the version was registered")


def _inside(folder: Path, filename: object) -> str:
    if isinstance(filename, str):
        relative = os.path.relpath(filename, folder)
        if relative != "." and not relative.startswith(".."):
            return relative
    return folder.name
