"""Which paths and URIs a version may come from."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath
from typing import cast
from urllib.parse import quote

import pytest

from hotswap.errors import BadInput
from hotswap.sources import locate as locating
from hotswap.sources.locate import locate


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = (tmp_path / "models").resolve()
    (root / "fraud" / "v 1").mkdir(parents=True)
    (root / "fraud" / "v 1" / "model.onnx").write_text("x")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "model.onnx").write_text("x")
    (tmp_path / "models-evil").mkdir()
    return root


def test_paths_and_file_uris_within_the_root_are_found(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain, relative, as a URI, percent-encoded once, and through a link that stays inside."""
    version = root / "fraud" / "v 1"
    monkeypatch.chdir(root)
    (root / "current").symlink_to("fraud/v 1")
    for source in (
        version,
        str(version),
        f"{version}/",
        "fraud/v 1",
        "./fraud/v 1",
        f"file:{quote(str(version))}",
        f"file://{quote(str(version))}",
        f"FILE://localhost{quote(str(version))}",
        "current",
    ):
        assert locate(source, [Path("/nowhere"), root]) == version
    assert locate(str(version / "model.onnx"), [root]).name == "model.onnx"


OUTSIDE = [
    "/etc",
    "/etc/passwd",
    "file:///etc",
    "file:///etc/passwd",
    "file:/etc/passwd",
    "{parent}/secret",
    "{parent}/models-evil",
    "{parent}",
    "{parent}/does-not-exist",
    "//etc/passwd",
    "/proc/self/root/etc/passwd",
    "/dev/fd/0",
]
BAD = [
    "",
    "  ",
    "{root}/../secret",
    "{root}/fraud/../../secret/model.onnx",
    "..",
    "../secret",
    "\\..\\..\\file",
    "{root}\\..\\secret",
    "{root}/..\\..\\secret",
    "{root}/%2e%2e/secret",
    "%2e%2e%2fsecret",
    "{root}/%252e%252e%252fsecret",
    "file://{root}/%2e%2e/secret",
    "file://{root}/%2E%2E%2Fsecret",
    "file://{root}/%252e%252e%252fsecret",
    "file://{root}/..%5c..%5csecret",
    "file://{root}/%00",
    "{root}/\x00",
    "{root}/fraud\nv1",
    "file://{root}/%0a",
    "file://{root}/%ff",
    "file://evil.example{root}/fraud",
    "file://evil.example@localhost{root}",
    "file://{root}/fraud?x=1",
    "file://{root}/fraud#x",
    "file://{root}/fraud?",
    "file:fraud",
    "file://[::1{root}",
    "http://127.0.0.1/model.onnx",
    "https://example.com/m.tar.gz",
    "s3://bucket/model",
    "gs://bucket/model",
    "models:/fraud/1",
    "C:\\models",
    "C:/models",
    "javascript:alert(1)",
    "{root}/" + "a" * 5000,
    "{root}/nothing",
]


@pytest.mark.parametrize("source", OUTSIDE + BAD, ids=ascii)
def test_everything_else_is_refused_and_never_opened(
    root: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One printable sentence; the file that was meant is not touched."""
    monkeypatch.chdir(root)
    opened: list[object] = []
    monkeypatch.setattr("builtins.open", lambda *args: opened.append(args))
    monkeypatch.setattr(os, "open", lambda *args: opened.append(args))
    text = source.replace("{root}", str(root)).replace("{parent}", str(root.parent))
    with pytest.raises(BadInput) as caught:
        locate(text, [root])
    message = str(caught.value)
    assert message.isprintable()
    assert message.isascii()
    assert len(message) < 600
    assert opened == []
    if source in OUTSIDE:
        assert "outside of the folders" in message
        assert "--allow-root" in message


def test_links_out_of_the_root_are_refused(root: Path) -> None:
    """To a folder, to a file, and through a chain."""
    (root / "folder").symlink_to(root.parent / "secret")
    (root / "file").symlink_to("/etc/passwd")
    (root / "chain").symlink_to("folder")
    (root / "loop").symlink_to("loop")
    for source in ("folder", "file", "chain", "folder/model.onnx"):
        with pytest.raises(BadInput, match="outside"):
            locate(str(root / source), [root])
    with pytest.raises(BadInput):
        locate(str(root / "loop"), [root])


def test_a_root_that_is_a_link_itself_works(root: Path) -> None:
    """Both sides are resolved."""
    link = root.parent / "link"
    link.symlink_to(root)
    assert locate(str(link / "fraud"), [link]) == root / "fraud"
    assert locate(str(root / "fraud"), [link]) == root / "fraud"


def test_without_roots_nothing_may_be_read(root: Path) -> None:
    """An empty list allows nothing."""
    with pytest.raises(BadInput, match="outside"):
        locate(str(root), [])


def test_special_files_are_no_source(root: Path) -> None:
    """A pipe is not opened."""
    os.mkfifo(root / "pipe")
    with pytest.raises(BadInput, match="names no file or folder"):
        locate(str(root / "pipe"), [root])


@pytest.mark.parametrize(
    "source",
    [
        PureWindowsPath("C:\\models\\v1"),
        "C:\\models\\v1",
        "C:/models/v1",
        "file:///C:/models/v1",
        "file:///C:/models%2Fv1",
    ],
)
def test_paths_of_windows_are_found(
    source: str | PureWindowsPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drives and backslashes are part of paths there; here the drive is a folder of that name."""
    monkeypatch.setattr(locating, "_WINDOWS", True)
    monkeypatch.chdir(tmp_path)
    version = tmp_path / "C:" / "models" / "v1"
    version.mkdir(parents=True)
    assert locate(cast("str | Path", source), [tmp_path]) == version.resolve()
    with pytest.raises(BadInput, match="scheme"):
        locate("https:/models/v1", [tmp_path])
    with pytest.raises(BadInput, match=r"'\.\.'"):
        locate("C:\\models\\..\\v1", [tmp_path])


def test_a_native_path_is_judged_by_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path object's separators are its platform's, wherever this runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "v1").mkdir(parents=True)
    source = cast(Path, PureWindowsPath("models\\v1"))
    assert locate(source, [tmp_path]) == (tmp_path / "models" / "v1").resolve()
