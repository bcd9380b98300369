"""Hashing an artifact, and proving that it did not change."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hotswap.core.spec import Artifact, ManifestEntry
from hotswap.errors import DigestMismatch, LoadError
from hotswap.sources.manifest import (
    build_manifest,
    check_member,
    digest_of,
    list_files,
    verify,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "v1"
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "data" / "deep" / "large.bin").write_bytes(b"x" * 300_000)
    (folder / "data" / "empty").write_bytes(b"")
    return folder


def artifact_of(folder: Path) -> Artifact:
    manifest = build_manifest(folder)
    return Artifact(str(folder), "model.onnx", "onnx", digest_of(manifest), manifest)


def test_the_manifest_lists_every_file_with_size_and_hash(folder: Path) -> None:
    """Small, large and empty files, by path."""
    large = b"x" * 300_000
    assert build_manifest(folder) == (
        ManifestEntry("data/deep/large.bin", 300_000, hashlib.sha256(large).hexdigest()),
        ManifestEntry("data/empty", 0, hashlib.sha256(b"").hexdigest()),
        ManifestEntry("model.onnx", 5, hashlib.sha256(b"model").hexdigest()),
    )


def test_what_is_ignored_changes_no_digest(folder: Path) -> None:
    """Dotfiles, ``.git`` and ``__pycache__`` are no part of an artifact."""
    before = artifact_of(folder)
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    (folder / "data" / "__pycache__").mkdir()
    (folder / "data" / "__pycache__" / "m.pyc").write_text("x")
    (folder / ".DS_Store").symlink_to("/etc/passwd")
    assert artifact_of(folder) == before
    verify(before)


def test_the_digest_is_that_of_paths_sizes_and_hashes() -> None:
    """Each field counts; the order of the entries does not."""
    a, b = ManifestEntry("a", 1, "00"), ManifestEntry("b", 2, "11")
    digests = {
        digest_of([a, b]),
        digest_of([a]),
        digest_of([]),
        digest_of([msgspec.structs.replace(a, path="c"), b]),
        digest_of([msgspec.structs.replace(a, size=3), b]),
        digest_of([msgspec.structs.replace(a, sha256="22"), b]),
        digest_of([ManifestEntry("a", 1, "11"), ManifestEntry("b", 2, "00")]),
    }
    assert len(digests) == 7
    assert digest_of([b, a]) == digest_of([a, b])
    assert all(len(digest) == len("sha256:") + 64 for digest in digests)


def test_the_digest_never_changes_between_releases() -> None:
    """Digests are stored: the way they are computed is fixed."""
    content = b'[["a",1,"00"],["b/c",2,"11"]]'
    entries = [ManifestEntry("b/c", 2, "11"), ManifestEntry("a", 1, "00")]
    assert digest_of(entries) == "sha256:" + hashlib.sha256(content).hexdigest()


def test_an_unchanged_artifact_verifies(folder: Path) -> None:
    """Nothing is raised, also after the folder was touched."""
    artifact = artifact_of(folder)
    os.utime(folder / "model.onnx")
    verify(artifact)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"mOdel"), "model.onnx was changed"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"longer"), "model.onnx has 6 bytes"),
        (lambda folder: (folder / "data" / "empty").unlink(), "data/empty is missing"),
        (lambda folder: (folder / "data" / "new.py").write_text(""), "data/new.py was added"),
        (lambda folder: folder.rename(folder.with_name("gone")), "folder is gone"),
    ],
)
def test_each_change_is_found_and_named(folder: Path, change: object, names: str) -> None:
    """Changed, resized, missing and added files, and a missing folder."""
    artifact = artifact_of(folder)
    change(folder)  # type: ignore[operator]
    with pytest.raises(DigestMismatch, match=names):
        verify(artifact)


def test_sizes_are_compared_before_anything_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong size is found without opening a file."""
    artifact = artifact_of(folder)
    (folder / "model.onnx").write_bytes(b"longer")

    def opened(*_: object) -> int:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(DigestMismatch, match="has 6 bytes"):
        verify(artifact)


def test_a_manifest_that_is_not_the_digests_is_refused(folder: Path) -> None:
    """Changing the file and its entry does not help without the digest."""
    artifact = artifact_of(folder)
    (folder / "model.onnx").write_bytes(b"mOdel")
    forged = msgspec.structs.replace(artifact, manifest=build_manifest(folder))
    with pytest.raises(DigestMismatch, match=artifact.digest):
        verify(forged)


@pytest.mark.parametrize("target", ["/etc/passwd", "model.onnx", "nowhere"])
def test_symbolic_links_are_refused(folder: Path, target: str) -> None:
    """Wherever they point, and also where a file was replaced by one after registration."""
    artifact = artifact_of(folder)
    (folder / "data" / "link").symlink_to(target)
    with pytest.raises(LoadError, match="data/link is a symbolic link"):
        build_manifest(folder)
    with pytest.raises(LoadError, match="data/link is a symbolic link"):
        verify(artifact)


def test_a_linked_folder_is_refused(folder: Path) -> None:
    """A link to a folder is not entered."""
    (folder / "more").symlink_to("/etc")
    with pytest.raises(LoadError, match="more is a symbolic link"):
        build_manifest(folder)


def test_a_hard_link_from_outside_is_refused(folder: Path) -> None:
    """Links within the artifact are fine; a name elsewhere could change it."""
    os.link(folder / "model.onnx", folder / "data" / "same.onnx")
    assert len(build_manifest(folder)) == 4
    os.link(folder / "model.onnx", folder.parent / "outside")
    with pytest.raises(LoadError, match="hard-linked from outside"):
        build_manifest(folder)


def test_special_files_are_refused(folder: Path) -> None:
    """A FIFO or a socket is not opened (that could block), but refused."""
    os.mkfifo(folder / "pipe")
    with pytest.raises(LoadError, match="pipe is neither a file nor a folder"):
        build_manifest(folder)
    (folder / "pipe").unlink()
    here = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        with pytest.raises(LoadError, match="socket is neither a file nor a folder"):
            build_manifest(folder)


@pytest.mark.parametrize(
    "name", ["a\\b", "a\nb", "a\x1b[2J", "\u202etxt.exe", os.fsdecode(b"\xff\xfe"), "C:model"]
)
def test_hostile_file_names_are_refused(folder: Path, name: str) -> None:
    """Names that are read differently elsewhere or break a log line."""
    (folder / name).write_bytes(b"")
    with pytest.raises(LoadError, match="is not a valid file name") as caught:
        build_manifest(folder)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "a\x00b", "..\\x", "c:\\x", "c:x"])
def test_hostile_member_paths_are_refused(path: str) -> None:
    """Whatever could leave the folder."""
    with pytest.raises(LoadError, match="is not a valid file name"):
        check_member(path)


def test_an_empty_folder_is_no_artifact(tmp_path: Path) -> None:
    """And neither is one with ignored files only."""
    (tmp_path / ".hidden").write_text("x")
    with pytest.raises(LoadError, match="there is no file"):
        build_manifest(tmp_path)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    """The folder's own name is in the message, and not its path."""
    with pytest.raises(LoadError, match=r"^gone cannot be read: No such file"):
        list_files(tmp_path / "gone")


def test_very_deep_folders_are_refused(tmp_path: Path) -> None:
    """A bound on depth, so that nothing recurses without end."""
    deep = tmp_path.joinpath(*["d"] * 70)
    deep.mkdir(parents=True)
    (deep / "x").write_text("")
    with pytest.raises(LoadError, match="deep"):
        list_files(tmp_path)


def test_verifying_imports_nothing_heavy() -> None:
    """A host verifies before it loads: only the standard library and msgspec are needed."""
    script = (
        "import sys, hotswap.sources.manifest\n"
        "heavy = {'numpy', 'yaml', 'asyncio', 'tarfile', 'sqlalchemy', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
