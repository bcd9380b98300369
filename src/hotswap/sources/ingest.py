"""Taking a version in: find it, judge it, hash it, copy it to ``artifacts/<digest>``.

What was taken in never changes: the copy is read-only, complete before it gets its name, and
verified at each load. Nothing of the source is executed or unpickled here.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hotswap.core.naming import STAGING
from hotswap.core.spec import Artifact, Ingested, ManifestEntry, VersionSettings
from hotswap.errors import BadInput, ConfigError, DigestMismatch, LoadError, StoreError
from hotswap.sources import archive, copying, manifest, settings
from hotswap.sources.locate import locate

if TYPE_CHECKING:
    from hotswap.ports import Runtime

Find = Callable[[Path, "str | None"], "tuple[Runtime, str]"]
"""Chooses the runtime for a folder (``plugins.find_runtime``): (folder, wanted name or None)."""

ARTIFACTS: Final = "artifacts"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_PACKED: Final = ("model.tar.gz", "model.tgz")
_WINDOWS: bool = os.name == "nt"
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


def ingest(
    source: str | Path,
    state_dir: Path,
    allowed_roots: Sequence[Path],
    find: Find,
    *,
    wanted_runtime: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    in_place: bool = False,
    progress: copying.Progress | None = None,
) -> Ingested:
    """Take in a folder, a single model file, or a ``model.tar.gz``.

    ``overrides`` go over the keys of ``version.yaml``. In place, the artifact stays where it
    is and is only hashed. An artifact that is in the state directory already is verified and
    used again, so taking the same content in twice costs no space.

    Raises `BadInput` for a URI or an override that is not valid, `ConfigError` for a bad
    ``version.yaml``, `LoadError` for an artifact that cannot be taken, `StoreError` for a
    state directory that cannot be written or is full. Nothing is left behind then.
    """
    path = locate(source, allowed_roots)
    beside = path if path.is_dir() else path.parent
    wanted = _override(settings.read_version_yaml(beside), overrides or {})
    runtime_name = wanted_runtime or wanted.runtime
    if in_place or wanted.in_place:
        wanted = msgspec.structs.replace(wanted, in_place=True)
        return _in_place(path, wanted, runtime_name, find, progress)
    store = Path(os.path.realpath(state_dir)) / ARTIFACTS
    if store.is_relative_to(path) and not _hidden_below(store, path):
        raise BadInput("the state directory lies within this artifact: keep them apart")
    with staging(state_dir, path.name) as staged:
        entries = _stage(path, staged, wanted, runtime_name, find, progress)
        if (staged / settings.FILE).exists() and not (beside / settings.FILE).exists():
            wanted = _override(settings.read_version_yaml(staged), overrides or {})  # was packed
            runtime_name = wanted_runtime or wanted.runtime
            if wanted.in_place:
                raise BadInput("an archive cannot be served in place: unpack it, or have it copied")
        runtime, entry = find(staged, runtime_name)
        runs_code = runtime.runs_code(staged, entry)
        digest = manifest.digest_of(entries)
        folder = store / digest.removeprefix("sha256:")
        artifact = Artifact(os.fspath(folder), entry, runtime.name, digest, tuple(entries))
        _publish(staged, artifact)
    return Ingested(artifact, wanted, runtime.platform, runs_code)


def discard(artifact: Artifact, state_dir: Path) -> bool:
    """Remove the copy of an artifact that no version uses any more; whether there was one.

    Only ``artifacts/<digest>`` is ever removed: an artifact in place is left where it is. It
    loses its name at once, so nothing sees half of it. Raises `BadInput` for a digest that is
    none, `StoreError` if it cannot be removed.
    """
    if not _DIGEST.fullmatch(artifact.digest):
        raise BadInput(f"{artifact.digest[:80]!a} is no digest: it is sha256: and 64 hex digits")
    folder = Path(os.path.realpath(state_dir)) / ARTIFACTS / artifact.digest.removeprefix("sha256:")
    if Path(artifact.folder) != folder or not folder.is_dir() or folder.is_symlink():
        return False
    with staging(state_dir, "discarded") as staged:
        folder.rename(staged / "artifact")
    return True


def _in_place(
    path: Path,
    wanted: VersionSettings,
    runtime_name: str | None,
    find: Find,
    progress: copying.Progress | None,
) -> Ingested:
    if not path.is_dir():
        raise BadInput("only a folder can be served in place: give the folder of this file")
    files = _files_of(path)
    if any(seen.path in _PACKED for seen in files):
        raise BadInput("an archive cannot be served in place: unpack it, or have it copied")
    manifest.refuse_outside_links(files)
    runtime, entry = find(path, runtime_name)
    entries = copying.hash_files(path, files, progress)
    _check_same(path, files)
    _check_none_new(path, files)
    artifact = Artifact(
        os.fspath(path), entry, runtime.name, manifest.digest_of(entries), tuple(entries)
    )
    return Ingested(artifact, wanted, runtime.platform, runtime.runs_code(path, entry))


def _stage(
    path: Path,
    staged: Path,
    wanted: VersionSettings,
    runtime_name: str | None,
    find: Find,
    progress: copying.Progress | None,
) -> list[ManifestEntry]:
    """Bring the artifact's files into ``staged``; their manifest."""
    if path.is_dir():
        folder, files = path, _files_of(path)
    else:
        folder, files = path.parent, _beside(path, wanted)
    manifest.refuse_outside_links(files)
    packed = [seen for seen in files if _is_packed(seen.path, path)]
    if len(packed) > 1:
        raise LoadError(f"there are both {packed[0].path} and {packed[1].path}: keep one")
    if not packed:
        if path.is_dir():
            find(path, runtime_name)  # before the copying: an error now is cheap
        entries = copying.copy_files(folder, files, staged, progress)
        _check_same(folder, files)
        if path.is_dir():
            _check_none_new(folder, files)
        copying.settle(staged)
        return entries
    rest = [seen for seen in files if seen not in packed]
    inner = staged / ".unpacked"
    inner.mkdir()
    archive.unpack(folder / packed[0].path, inner)
    _check_same(folder, files)
    _lift(inner, staged)
    for seen in rest:
        if (staged / seen.path).exists():
            raise LoadError(f"{seen.path} is both in {packed[0].path} and beside it: keep one")
    copying.copy_files(folder, rest, staged)
    copying.settle(staged)
    return copying.hash_files(staged, _files_of(staged), progress)


def _lift(inner: Path, staged: Path) -> None:
    """Move what was unpacked up; a single top folder (``tar -czf model.tar.gz model``) is left out."""
    top = list(inner.iterdir())
    while len(top) == 1 and top[0].is_dir():
        top = list(top[0].iterdir())
    for item in top:
        item.rename(staged / item.name)
    shutil.rmtree(inner)


def _files_of(folder: Path) -> list[manifest.FileSeen]:
    files = manifest.list_files(folder)
    if not files:
        raise LoadError(f"there is no file in {folder.name}")
    return files


def _beside(file: Path, wanted: VersionSettings) -> list[manifest.FileSeen]:
    """A single model file, with its ``version.yaml`` and samples if they lie beside it."""
    names = [file.name]
    if file.name == settings.FILE:
        raise LoadError(f"{settings.FILE} is no model: give the model's file or folder")
    if (file.parent / settings.FILE).exists():
        names.append(settings.FILE)
    if isinstance(wanted.samples, str) and (file.parent / wanted.samples).is_file():
        names.append(wanted.samples)
    return [_seen(file.parent, name) for name in sorted(set(names))]


def _seen(folder: Path, name: str) -> manifest.FileSeen:
    manifest.check_member(name)
    try:
        info = os.stat(folder / name, follow_symlinks=False)
    except OSError as error:
        raise LoadError(f"{name} cannot be read: {error.strerror or error}") from error
    if os.path.islink(folder / name):
        raise LoadError(f"{name} is a symbolic link: put the file itself there")
    return manifest.FileSeen(
        name, info.st_size, info.st_mtime_ns, info.st_dev, info.st_ino, info.st_nlink
    )


def _is_packed(name: str, path: Path) -> bool:
    if path.is_dir():
        return name in _PACKED
    return name == path.name and archive.is_archive(path)


def _check_same(folder: Path, files: Sequence[manifest.FileSeen]) -> None:
    """Raise `LoadError` if what was listed before is not there, as it was, now."""
    for seen in files:
        if _seen(folder, seen.path) != seen:
            raise copying.being_written(seen.path)


def _check_none_new(folder: Path, files: Sequence[manifest.FileSeen]) -> None:
    new = {seen.path for seen in manifest.list_files(folder)} - {seen.path for seen in files}
    if new:
        raise copying.being_written(min(new))


def _override(read: VersionSettings, overrides: Mapping[str, Any]) -> VersionSettings:
    for key in overrides:
        if key not in VersionSettings.__struct_fields__:
            allowed = ", ".join(VersionSettings.__struct_fields__)
            raise BadInput(f"unknown setting {ascii(key)[:60]}; allowed: {allowed}")
    if not overrides:
        return read
    try:
        merged = msgspec.convert({**msgspec.to_builtins(read), **overrides}, VersionSettings)
        settings.check_values(merged)
    except (msgspec.ValidationError, ConfigError) as error:
        raise BadInput(str(error).replace("`", "").removeprefix(f"{settings.FILE}: ")) from error
    return merged


def _hidden_below(store: Path, path: Path) -> bool:
    return any(manifest.ignored(part) for part in store.relative_to(path).parts)


@contextmanager
def staging(state_dir: Path, name: str) -> Iterator[Path]:
    """A private new folder called ``name`` (errors quote it) on the artifacts' file system.

    It is removed at the end, and so is what a killed process left, unless another process has
    its id now: that goes when the next server begins (`hotswap.app.folders`). An `OSError` within becomes
    a `StoreError` about the state directory.
    """
    with _store_errors(state_dir):
        store = state_dir / ARTIFACTS
        store.mkdir(parents=True, exist_ok=True)
        _sweep(store)
        private = store / f"{STAGING}{os.getpid()}-{secrets.token_hex(8)}"
        private.mkdir(mode=0o700)
        try:
            staged = private / (name.lstrip(".") or "model")
            staged.mkdir()
            yield staged
        finally:
            shutil.rmtree(private, ignore_errors=True)


def _sweep(store: Path) -> None:
    """Remove what a killed process left."""
    for item in store.iterdir():
        if item.name.startswith(STAGING):
            pid = item.name.removeprefix(STAGING).partition("-")[0]
            if pid.isdigit() and not _alive(int(pid)):
                shutil.rmtree(item, ignore_errors=True)


def _alive(pid: int) -> bool:
    if _WINDOWS:
        return True  # there the question would end the process; what it left is left
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _publish(staged: Path, artifact: Artifact) -> None:
    """Give the staged folder its final name; what is there already is used if it is whole."""
    folder = Path(artifact.folder)
    if folder.exists():
        try:
            manifest.verify(artifact)
            return
        except (DigestMismatch, LoadError):
            folder.rename(staged.parent / "damaged")
    os.chmod(staged, 0o755)
    staged.rename(folder)
    copying.sync_folder(folder.parent)


@contextmanager
def _store_errors(state_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreError(
                f"there is no space left in the state directory {state_dir}: free some and try again"
            ) from error
        raise StoreError(
            f"the state directory {state_dir} cannot be written "
            f"({error.strerror or type(error).__name__}): check its permissions"
        ) from error
