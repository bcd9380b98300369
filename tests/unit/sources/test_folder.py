"""Watching a models folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from hotswap.errors import ConfigError
from hotswap.ports import VersionSource
from hotswap.sources.folder import FolderSource

SETTLE = 2.0


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.offset = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.offset


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    root.mkdir()
    return root


def source(root: Path, clock: Clock) -> FolderSource:
    return FolderSource(root, 0.001, SETTLE, clock)


def put(root: Path, path: str, clock: Clock, age: float = 0.0, content: str = "x") -> Path:
    """Write a file whose time is the clock's, ``age`` seconds ago; its folders' times too."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    when = clock.wall() - age
    for item in (file, file.parent):
        os.utime(item, (when, when))
    return file


def names(watched: FolderSource) -> list[str]:
    return [f"{found.model}/{found.version}" for found in watched.look().found]


def problems(watched: FolderSource) -> dict[str, str]:
    return {problem.path: problem.reason for problem in watched.look().problems}


def test_models_and_versions_are_found_at_once_at_the_start(root: Path, clock: Clock) -> None:
    """What nobody has written to lately is complete: a start does not wait."""
    put(root, "fraud/v1/model.joblib", clock, age=60)
    put(root, "fraud/v2/model.onnx", clock, age=60)
    put(root, "churn/2024-01-01/MLmodel", clock, age=60)
    put(root, "README.md", clock)
    put(root, "fraud/notes.txt", clock)
    watched = source(root, clock)
    look = watched.look()
    assert [(f.model, f.version, f.path) for f in look.found] == [
        ("churn", "2024-01-01", root / "churn" / "2024-01-01"),
        ("fraud", "v1", root / "fraud" / "v1"),
        ("fraud", "v2", root / "fraud" / "v2"),
    ]
    assert look.problems == ()
    assert look.pending == 0


def test_versions_directly_below_are_one_model_called_default(root: Path, clock: Clock) -> None:
    """MODELS/<version>/<artifact>, with folders inside of the versions too."""
    put(root, "v1/model.joblib", clock, age=60)
    put(root, "v2/data/model.pth", clock, age=60)
    put(root, "v2/MLmodel", clock, age=60)
    assert names(source(root, clock)) == ["default/v1", "default/v2"]


def test_files_of_unknown_names_decide_where_no_known_one_does(root: Path, clock: Clock) -> None:
    """A plugin's format has a name that this code does not know."""
    put(root, "m/v1/weights.gguf", clock, age=60)
    assert names(source(root, clock)) == ["m/v1"]
    other = root / "other"
    put(other, "v1/weights.gguf", clock, age=60)
    assert names(source(other, clock)) == ["default/v1"]


def test_a_new_version_is_reported_when_it_has_settled(root: Path, clock: Clock) -> None:
    """Two looks at the least, and the settling time between them, however old its files are."""
    put(root, "m/v1/model.onnx", clock, age=60)
    watched = source(root, clock)
    assert names(watched) == ["m/v1"]
    put(root, "m/v2/model.onnx", clock, age=3600)
    clock.now += 100
    assert names(watched) == ["m/v1"]
    assert watched.last.pending == 1
    clock.now += SETTLE - 0.1
    assert names(watched) == ["m/v1"]
    clock.now += 0.2
    assert names(watched) == ["m/v1", "m/v2"]
    assert watched.last.pending == 0


@pytest.mark.parametrize("change", ["grow", "add", "touch", "remove"])
def test_a_version_that_is_being_written_is_held_back(
    root: Path, clock: Clock, change: str
) -> None:
    """Each change begins the settling anew."""
    put(root, "m/v0/model.onnx", clock, age=60)
    watched = source(root, clock)
    watched.look()
    put(root, "m/v1/model.onnx", clock, age=60)
    put(root, "m/v1/extra.bin", clock, age=60)
    watched.look()
    for step in range(3):
        clock.now += SETTLE - 0.5
        file = root / "m" / "v1" / "model.onnx"
        if change == "grow":
            file.write_text("x" * (step + 2))
            os.utime(file, (1, 1))
        elif change == "add":
            put(root, f"m/v1/{step}.bin", clock, age=60)
        elif change == "touch":
            os.utime(file, (step + 2, step + 2))
        elif step == 0:
            (root / "m" / "v1" / "extra.bin").unlink()
        else:
            continue
        assert names(watched) == ["m/v0"]
    clock.now += SETTLE + 0.1
    watched.look()
    clock.now += SETTLE + 0.1
    assert names(watched) == ["m/v0", "m/v1"]


def test_fresh_files_are_waited_for_at_the_start_too(root: Path, clock: Clock) -> None:
    """Also those whose times lie in the future, as on a machine with a wrong clock."""
    put(root, "m/v1/model.onnx", clock, age=0.5)
    put(root, "m/v2/model.onnx", clock, age=-3600)
    watched = source(root, clock)
    assert names(watched) == []
    assert watched.last.pending == 2
    clock.now += SETTLE
    assert names(watched) == ["m/v1", "m/v2"]


def test_markers_and_temporary_names_hold_a_version_back(root: Path, clock: Clock) -> None:
    """``.incomplete`` in the version's or the model's folder; hidden and temporary folders."""
    put(root, "m/v1/model.onnx", clock, age=60)
    put(root, "m/v2/model.onnx", clock, age=60)
    put(root, "other/v1/model.onnx", clock, age=60)
    marker = put(root, "m/v2/.incomplete", clock, age=60)
    whole = put(root, "other/.incomplete", clock, age=60)
    for name in (".v3", "v3.tmp", "v3.partial", ".git", "__pycache__", "lost+found"):
        put(root, f"m/{name}/model.onnx", clock, age=60)
        put(root, f"{name}/v1/model.onnx", clock, age=60)
    watched = source(root, clock)
    assert names(watched) == ["m/v1"]
    assert watched.last.problems == ()
    marker.unlink()
    whole.unlink()
    watched.look()
    clock.now += SETTLE
    assert names(watched) == ["m/v1", "m/v2", "other/v1"]


def test_a_marker_holds_a_version_back_in_the_flat_layout(root: Path, clock: Clock) -> None:
    """Also while it has no other file yet."""
    put(root, "v1/model.onnx", clock, age=60)
    put(root, "v2/.incomplete", clock, age=60)
    watched = source(root, clock)
    assert names(watched) == ["default/v1"]
    assert watched.last.problems == ()


def test_bad_names_are_problems_and_hide_nothing_else(root: Path, clock: Clock) -> None:
    """Each is named, in one printable sentence."""
    put(root, "good/v1/model.onnx", clock, age=60)
    bad = ["a b", "é", "_x", "-rf", "%2e%2e", "%252e%252e%252f", "a\\..\\file", "a..b", "a\nb"]
    for name in bad:
        put(root, f"{name}/v1/model.onnx", clock, age=60)
        put(root, f"good/{name}/model.onnx", clock, age=60)
    watched = source(root, clock)
    assert names(watched) == ["good/v1"]
    found = watched.last.problems
    assert len(found) == 2 * len(bad)
    for problem in found:
        assert "is not valid" in problem.reason
        assert "rename" in problem.reason
        assert (problem.path + problem.reason).isprintable()


def test_links_and_odd_files_are_problems(root: Path, clock: Clock) -> None:
    """A linked model or version is not followed; a link inside of a version is named."""
    put(root, "m/v1/model.onnx", clock, age=60)
    put(root.parent, "elsewhere/v1/model.onnx", clock, age=60)
    (root / "linked").symlink_to(root.parent / "elsewhere")
    (root / "m" / "latest").symlink_to("v1")
    put(root, "m/v2/model.onnx", clock, age=60)
    (root / "m" / "v2" / "secret").symlink_to("/etc/passwd")
    put(root, "m/v3/model.onnx", clock, age=60)
    os.mkfifo(root / "m" / "v3" / "pipe")
    watched = source(root, clock)
    assert names(watched) == ["m/v1"]
    said = problems(watched)
    assert said.keys() == {"linked", "m/latest", "m/v2", "m/v3"}
    assert "symbolic link" in said["linked"]
    assert "secret is a symbolic link" in said["m/v2"]
    assert "pipe is neither" in said["m/v3"]


def test_files_in_the_wrong_place_are_problems_and_hide_nothing(root: Path, clock: Clock) -> None:
    """A model file beside the versions or the models is told where it belongs."""
    put(root, "a/v1/model.onnx", clock, age=60)
    put(root, "b/v1/model.onnx", clock, age=60)
    put(root, "b/model.onnx", clock, age=60)
    put(root, "model.joblib", clock, age=60)
    watched = source(root, clock)
    assert names(watched) == ["a/v1", "b/v1"]
    said = problems(watched)
    assert "move it to b/v1/" in said["b/model.onnx"]
    assert "<model>/<version>/" in said["model.joblib"]


def test_the_layout_does_not_turn_over_while_running(root: Path, clock: Clock) -> None:
    """A half-copied version with folders is not taken for a model."""
    put(root, "v1/model.onnx", clock, age=60)
    watched = source(root, clock)
    assert names(watched) == ["default/v1"]
    for number in range(2, 6):
        put(root, f"v{number}/data/model.pth", clock, age=60)
    watched.look()
    clock.now += SETTLE
    assert names(watched) == ["default/v1"]
    assert "holds no model file" in problems(watched)["v2"]
    put(root, "v2/MLmodel", clock, age=60)
    watched.look()
    clock.now += SETTLE
    assert names(watched) == ["default/v1", "default/v2"]


def test_a_change_to_a_found_version_is_told_and_reported_as_before(
    root: Path, clock: Clock
) -> None:
    """A version's content is fixed: the new content needs a new name."""
    file = put(root, "m/v1/model.onnx", clock, age=60)
    watched = source(root, clock)
    watched.look()
    file.write_text("changed")
    for _ in range(3):
        clock.now += SETTLE
        assert names(watched) == ["m/v1"]
        assert "new version" in problems(watched)["m/v1"]
    file.write_text("x")
    os.utime(file, (clock.wall() - 60, clock.wall() - 60))


def test_a_removed_version_is_no_longer_reported_and_settles_anew(root: Path, clock: Clock) -> None:
    """Gone is gone; what comes back is looked at like something new."""
    file = put(root, "m/v1/model.onnx", clock, age=60)
    put(root, "m/v2/model.onnx", clock, age=60)
    watched = source(root, clock)
    watched.look()
    file.unlink()
    file.parent.rmdir()
    assert names(watched) == ["m/v2"]
    put(root, "m/v1/model.onnx", clock, age=60)
    assert names(watched) == ["m/v2"]
    clock.now += SETTLE
    assert names(watched) == ["m/v1", "m/v2"]


def test_a_missing_folder_at_the_start_is_one_clear_line(root: Path, clock: Clock) -> None:
    """And so is a file in its place."""
    root.rmdir()
    with pytest.raises(ConfigError, match=r"models folder .* cannot be read") as caught:
        source(root, clock).look()
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)
    root.write_text("")
    with pytest.raises(ConfigError, match="cannot be read"):
        source(root, clock).look()


def test_a_folder_that_vanishes_later_keeps_what_was_found(root: Path, clock: Clock) -> None:
    """A lost mount unregisters nothing; when it is back, all goes on."""
    put(root, "m/v1/model.onnx", clock, age=60)
    watched = source(root, clock)
    watched.look()
    root.rename(root.with_name("away"))
    look = watched.look()
    assert [found.version for found in look.found] == ["v1"]
    assert "cannot be read" in look.problems[0].reason
    root.with_name("away").rename(root)
    assert names(watched) == ["m/v1"]
    assert watched.last.problems == ()


def test_a_part_that_cannot_be_read_keeps_what_was_found(
    root: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unreadable model is a problem, and its versions stay, also when it is readable again."""
    put(root, "a/v1/model.onnx", clock, age=60)
    put(root, "b/v1/model.onnx", clock, age=60)
    watched = source(root, clock)
    watched.look()
    scandir = os.scandir

    def failing(path: str | Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", failing)
        assert names(watched) == ["a/v1", "b/v1"]
        assert "Permission denied" in problems(watched)["b"]
    assert names(watched) == ["a/v1", "b/v1"]
    assert watched.last.problems == ()


def test_an_empty_folder_may_be_filled_later(root: Path, clock: Clock) -> None:
    """The layout is decided by what comes."""
    (root / "v1").mkdir()
    watched = source(root, clock)
    assert names(watched) == []
    put(root, "v1/model.onnx", clock, age=60)
    watched.look()
    clock.now += SETTLE
    assert names(watched) == ["default/v1"]


async def test_watching_reports_at_once_and_at_each_change(root: Path, clock: Clock) -> None:
    """The first report comes even if it is empty; equal looks are not repeated."""
    watched = source(root, clock)
    as_port: VersionSource = watched
    reports = as_port.watch()
    assert list(await anext(reports)) == []
    put(root, "m/v1/model.onnx", clock, age=60)

    async def move() -> None:
        while True:
            clock.now += SETTLE
            await asyncio.sleep(0)

    moving = asyncio.create_task(move())
    assert [found.version for found in await anext(reports)] == ["v1"]
    put(root, "m/bad name/model.onnx", clock, age=60)
    assert [found.version for found in await anext(reports)] == ["v1"]
    assert len(watched.last.problems) == 1
    moving.cancel()
    await reports.aclose()  # type: ignore[attr-defined]
