"""Fetching an artifact from an object store, once, into a private folder.

What a store lists is not trusted: a name that is not plain is refused before anything is written
for it, and bytes are counted as they arrive, whatever the listing said. What was fetched is then
taken in exactly as a local folder is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from hotswap.core.uris import Place
from hotswap.errors import LoadError, MissingDependency
from hotswap.sources.copying import Progress
from hotswap.sources.manifest import check_member, ignored

_CHUNK: Final = 1024 * 1024
_DEEPEST: Final = 64
_PACKAGES: Final = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs")}


class FetchLimits(msgspec.Struct, frozen=True):
    """Most that one version may have: bytes and files."""

    bytes: int
    files: int


class RemoteFile(msgspec.Struct, frozen=True):
    """One file as its store lists it: ``path`` relative, ``size`` -1 if that is not told."""

    path: str
    size: int


def filesystem(scheme: str) -> Any:
    """The fsspec file system of a scheme. Raises `MissingDependency` naming the extra.

    No listing is kept: what is fetched is what is there now.
    """
    package, extra = _PACKAGES[scheme]
    try:
        import fsspec

        return fsspec.filesystem(
            scheme, use_listings_cache=False, skip_instance_cache=True, **_options(scheme)
        )
    except ImportError:
        raise MissingDependency(
            f"{scheme}:// needs the package {package}: pip install 'hotswap[{extra}]'"
        ) from None


def _options(scheme: str) -> dict[str, Any]:
    if scheme == "s3":
        return {
            "config_kwargs": {
                "connect_timeout": 10,
                "read_timeout": 60,
                "retries": {"max_attempts": 3},
            }
        }
    return {}


def fetch(
    place: Place,
    into: Path,
    limits: FetchLimits,
    store: Any = None,
    progress: Progress | None = None,
) -> Path:
    """Copy the file or all of the folder into the existing empty folder ``into``; where it lies.

    ``store``: an fsspec file system, by default the one of the scheme. Raises `LoadError` for
    what is not there, cannot be read, is too large or has names that no artifact may have.
    """
    store = store if store is not None else filesystem(place.scheme)
    try:
        return _fetch(place, into, limits, store, progress)
    except (LoadError, MissingDependency):
        raise
    except FileNotFoundError:
        raise LoadError(f"there is nothing at {place.uri}") from None
    except PermissionError as error:
        raise LoadError(f"{place.uri} may not be read: {_told(error)}") from error
    except Exception as error:
        raise LoadError(f"{place.uri} cannot be fetched: {_told(error)}") from error


def _fetch(
    place: Place, into: Path, limits: FetchLimits, store: Any, progress: Progress | None
) -> Path:
    name = place.path.rsplit("/", 1)[1]
    info = store.info(place.path)
    if info["type"] == "file":
        check_member(name)
        files = [RemoteFile(name, _size(info))]
        root, target = place.path.rsplit("/", 1)[0], into
        found = target / name
    else:
        files = list_files(store, place.path, limits)
        root, target = place.path, into / "model"
        target.mkdir()
        found = target
    check_limits(files, limits, place.uri)
    total, done = sum(max(file.size, 0) for file in files), 0
    for file in files:
        done += _copy(store, f"{root}/{file.path}", file, target, limits.bytes - done, place.uri)
        if progress is not None:
            progress(done, max(total, done))
    return found


def list_files(store: Any, root: str, limits: FetchLimits) -> list[RemoteFile]:
    """Every file below ``root`` that is part of an artifact. Raises `LoadError` for wrong names."""
    found: dict[str, RemoteFile] = {}
    for path, entry in _walk(store, root, root, 0):
        if path in found:
            raise LoadError(f"{path!a} is listed twice: keep one")
        found[path] = RemoteFile(path, _size(entry))
        if len(found) > limits.files:
            raise too_many(limits)
    for path in found:
        parts = path.split("/")
        if any("/".join(parts[:count]) in found for count in range(1, len(parts))):
            raise LoadError(f"{path!a} lies below what is a file: keep one of them")
    return [found[path] for path in sorted(found)]


def _walk(store: Any, root: str, folder: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > _DEEPEST:
        raise LoadError(f"the artifact's folders are more than {_DEEPEST} deep")
    for entry in store.ls(folder, detail=True):
        name = str(entry["name"])
        full = name.rstrip("/")
        if full in (folder, root):
            continue  # the marker of the folder itself
        path = member(full, root)
        if any(ignored(part) for part in path.split("/")):
            continue
        if entry["type"] == "directory" or name.endswith("/"):
            yield from _walk(store, root, full, depth + 1)
        else:
            yield path, entry


def member(name: str, root: str) -> str:
    """The path below ``root`` of a listed name. Raises `LoadError` if it is not plain, or outside."""
    path = name.removeprefix(root.rstrip("/") + "/")
    if path == name:
        raise LoadError(f"{name!a} is listed, and lies outside of what was asked for")
    check_member(path)
    if any(part in ("", ".") for part in path.split("/")):
        raise LoadError(f"{path!a} is not a valid file name in an artifact: it has an empty part")
    return path


def check_limits(files: list[RemoteFile], limits: FetchLimits, uri: str) -> None:
    """Raise `LoadError` for what is nothing or, by its own word, too much."""
    if not files:
        raise LoadError(f"there is no file in {uri}")
    if len(files) > limits.files:
        raise too_many(limits)
    if sum(max(file.size, 0) for file in files) > limits.bytes:
        raise too_large(limits.bytes)


def too_many(limits: FetchLimits) -> LoadError:
    """It has more files than may be fetched."""
    return LoadError(f"the artifact has more than {limits.files} files: raise fetch_files")


def too_large(most: int) -> LoadError:
    """It has more bytes than may be fetched."""
    return LoadError(f"the artifact has more bytes than may be fetched ({most}): raise fetch_mb")


def _copy(store: Any, source: str, file: RemoteFile, target: Path, most: int, uri: str) -> int:
    """Copy one file; its bytes."""
    path = target / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    done = 0
    with (
        store.open(source, "rb", block_size=8 * _CHUNK, cache_type="readahead") as reader,
        path.open("xb") as writer,
    ):
        while data := reader.read(_CHUNK):
            done += len(data)
            if done > most:
                raise too_large(most)
            writer.write(data)
    if file.size not in (-1, done):
        raise LoadError(f"{uri} is being written: {file.path!a} has other bytes than were listed")
    return done


def _size(entry: Any) -> int:
    size = entry.get("size")
    return size if isinstance(size, int) and size >= 0 else -1


def _told(error: Exception) -> str:
    """A library's words on one line, without what could be a signed address."""
    line = " ".join(str(error).split()).partition("?")[0]
    return f"{type(error).__name__}: {line[:300]}" if line else type(error).__name__
