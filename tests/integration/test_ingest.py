"""Taking versions in, from the file system to ``artifacts/<digest>``."""

from __future__ import annotations

import errno
import gzip
import io
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hotswap.core.spec import Artifact, Ingested, VersionSettings
from hotswap.errors import BadInput, ConfigError, HotswapError, LoadError, StoreError
from hotswap.ports import Executor, Runtime
from hotswap.sources import copying
from hotswap.sources.ingest import discard, ingest
from hotswap.sources.manifest import digest_of, verify


class FakeRuntime:
    """Finds ``model.onnx`` (which runs nothing) and ``model.py`` (which runs code)."""

    name = "fake"
    platform = "fake_v1"
    extra = "fake"

    def entry(self, folder: Path) -> str | None:
        return next((n for n in ("model.onnx", "model.py") if (folder / n).is_file()), None)

    def runs_code(self, folder: Path, entry: str) -> str | None:
        return "It is code." if entry.endswith(".py") else None

    def preload(self) -> None: ...

    def load(self, artifact: Artifact, settings: VersionSettings) -> Executor:
        raise AssertionError("taking a version in must not load it")


def find(folder: Path, wanted: str | None) -> tuple[Runtime, str]:
    entry = FakeRuntime().entry(folder)
    if entry is None or wanted not in (None, "fake"):
        raise LoadError(f"there is no model in {folder.name} for {wanted}")
    return FakeRuntime(), entry


Take = Callable[..., Ingested]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    models = (tmp_path / "models").resolve()
    (models / "v1" / "data").mkdir(parents=True)
    (models / "v1" / "model.onnx").write_bytes(b"model")
    (models / "v1" / "data" / "large.bin").write_bytes(os.urandom(3_000_000))
    (models / "v1" / ".git").mkdir()
    (models / "v1" / ".git" / "HEAD").write_text("x")
    return models


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return (tmp_path / "state").resolve()


@pytest.fixture
def take(models: Path, state: Path) -> Take:
    def take(source: str | Path, **options: object) -> Ingested:
        return ingest(source, state, [models], find, **options)  # type: ignore[arg-type]

    return take


def left_in(state: Path) -> list[str]:
    """What is in the artifacts folder."""
    folder = state / "artifacts"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def files_in(folder: str | Path) -> list[str]:
    root = Path(folder)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def pack(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_a_folder_is_copied_under_its_digest(take: Take, models: Path, state: Path) -> None:
    """The copy has the artifact's files alone, is read-only, and verifies."""
    told: list[tuple[int, int]] = []
    taken = take(models / "v1", progress=lambda done, total: told.append((done, total)))
    artifact = taken.artifact
    assert artifact.folder == str(state / "artifacts" / artifact.digest.removeprefix("sha256:"))
    assert (artifact.entry, artifact.runtime) == ("model.onnx", "fake")
    assert (taken.platform, taken.runs_code) == ("fake_v1", None)
    assert files_in(artifact.folder) == ["data/large.bin", "model.onnx"]
    assert artifact.digest == digest_of(artifact.manifest)
    for entry in artifact.manifest:
        copy = Path(artifact.folder, entry.path)
        assert copy.read_bytes() == (models / "v1" / entry.path).read_bytes()
        assert stat.S_IMODE(copy.stat().st_mode) == 0o444
    verify(artifact)
    assert told[-1] == (3_000_005, 3_000_005)
    assert left_in(state) == [Path(artifact.folder).name]


def test_the_copy_is_independent_of_the_source(take: Take, models: Path) -> None:
    """Changing or removing the source afterwards changes nothing."""
    artifact = take(f"file://{models}/v1").artifact
    (models / "v1" / "model.onnx").write_bytes(b"other")
    (models / "v1" / "data" / "large.bin").unlink()
    verify(artifact)


def test_the_same_content_is_kept_once(take: Take, models: Path, state: Path) -> None:
    """Also under another name and with other times; the copy that is there is used."""
    first = take(models / "v1")
    inode = os.stat(first.artifact.folder).st_ino
    (models / "v1").rename(models / "v2")
    os.utime(models / "v2" / "model.onnx", (1, 1))
    assert take(models / "v2") == first
    assert os.stat(first.artifact.folder).st_ino == inode
    assert len(left_in(state)) == 1


def test_a_damaged_copy_is_replaced(take: Take, models: Path, state: Path) -> None:
    """A copy that no longer verifies is not used again."""
    artifact = take(models / "v1").artifact
    copy = Path(artifact.folder, "model.onnx")
    copy.chmod(0o644)
    copy.write_bytes(b"m0del")
    assert take(models / "v1").artifact == artifact
    verify(artifact)
    assert len(left_in(state)) == 1


def test_settings_come_from_the_file_and_the_caller(take: Take, models: Path) -> None:
    """version.yaml is part of the artifact; overrides go over it and are checked alike."""
    plain = take(models / "v1").artifact.digest
    (models / "v1" / "version.yaml").write_text("instances: 2\nchangelog: old\n")
    taken = take(models / "v1", overrides={"changelog": "new", "metadata": {"a": 1}})
    assert taken.settings == VersionSettings(instances=2, changelog="new", metadata={"a": 1})
    assert taken.artifact.digest != plain
    for wrong, says in (
        ({"instances": 0}, "instances must be at least 1"),
        ({"instances": "x"}, "instances"),
        ({"trust": True}, "unknown setting 'trust'"),
    ):
        with pytest.raises(BadInput, match=says):
            take(models / "v1", overrides=wrong)


def test_the_wanted_runtime_decides(take: Take, models: Path) -> None:
    """The caller's word goes over version.yaml's, which goes over the search."""
    with pytest.raises(LoadError, match="in v1 for other"):
        take(models / "v1", wanted_runtime="other")
    (models / "v1" / "version.yaml").write_text("runtime: other")
    with pytest.raises(LoadError, match="in v1 for other"):
        take(models / "v1")
    assert take(models / "v1", wanted_runtime="fake").artifact.runtime == "fake"


def test_code_is_told_and_not_run(take: Take, models: Path) -> None:
    """Why it needs trust is in the result; nothing of it ran."""
    (models / "code").mkdir()
    (models / "code" / "model.py").write_text("open('marker', 'w')")
    assert take(models / "code").runs_code == "It is code."
    assert not Path("marker").exists()


def test_a_single_file_is_taken_with_what_belongs_to_it(take: Take, models: Path) -> None:
    """version.yaml and the samples that it names, and nothing else that lies beside."""
    (models / "model.onnx").write_bytes(b"one file")
    (models / "rows.json").write_text("[[1]]")
    (models / "unrelated").write_text("x")
    assert files_in(take(models / "model.onnx").artifact.folder) == ["model.onnx"]
    (models / "version.yaml").write_text("samples: rows.json")
    taken = take(models / "model.onnx")
    assert files_in(taken.artifact.folder) == ["model.onnx", "rows.json", "version.yaml"]
    assert taken.settings.samples == "rows.json"


@pytest.mark.parametrize("top", ["", "./", "model/", "a/b/"])
def test_archives_are_unpacked(take: Take, models: Path, state: Path, top: str) -> None:
    """As a file, and in a version's folder; a single top folder is left out."""
    files = {f"{top}model.onnx": b"packed", f"{top}code/x.py": b"pass"}
    pack(models / "export.tgz", files)
    artifact = take(models / "export.tgz").artifact
    assert files_in(artifact.folder) == ["code/x.py", "model.onnx"]
    (models / "v2").mkdir()
    pack(models / "v2" / "model.tar.gz", files)
    assert take(models / "v2").artifact == artifact
    verify(artifact)
    assert len(left_in(state)) == 1


def test_settings_are_read_beside_and_inside_of_an_archive(take: Take, models: Path) -> None:
    """Wherever version.yaml lies it counts; in both places it is refused."""
    packed = models / "v2" / "model.tar.gz"
    packed.parent.mkdir()
    pack(packed, {"model.onnx": b"x", "version.yaml": b"instances: 3"})
    assert take(models / "v2").settings.instances == 3
    (models / "v2" / "version.yaml").write_text("instances: 2")
    with pytest.raises(LoadError, match=r"version\.yaml is both in model\.tar\.gz and beside it"):
        take(models / "v2")
    pack(packed, {"model.onnx": b"x"})
    assert take(models / "v2").settings.instances == 2


def test_in_place_nothing_is_copied(take: Take, models: Path, state: Path) -> None:
    """The artifact stays where it is, and verifies until somebody changes it."""
    taken = take(models / "v1", in_place=True)
    assert taken.artifact.folder == str(models / "v1")
    assert taken.settings.in_place
    assert left_in(state) == []
    assert taken.artifact.digest == take(models / "v1").artifact.digest
    verify(taken.artifact)
    (models / "v1" / "model.onnx").write_bytes(b"other")
    with pytest.raises(LoadError):
        verify(taken.artifact)


def test_only_folders_can_be_in_place(take: Take, models: Path) -> None:
    """A file or an archive has no folder of its own."""
    (models / "model.onnx").write_bytes(b"x")
    pack(models / "v1" / "model.tar.gz", {"model.onnx": b"x"})
    for name in ("model.onnx", "v1"):
        with pytest.raises(BadInput, match="in place"):
            take(models / name, in_place=True)


EVERYTHING = {
    "wanted_runtime": "fake",
    "overrides": {"metadata": {"is_prompt": True}, "changelog": "x", "instances": 1},
}
OUTSIDE = [
    "/etc",
    "file:///etc",
    "file:///etc/passwd",
    "{models}/../secret",
    "{models}/v1/../../secret",
    "{models}/%2e%2e/secret",
    "{models}/%252e%252e%252fsecret",
    "file://{models}/%252e%252e%252fsecret",
    "file://{models}/%2e%2e%2fsecret",
    "\\..\\..\\file",
    "{models}\\..\\..\\secret",
    "http://127.0.0.1/x",
    "s3://bucket/x",
    "gs://bucket/x",
    "models:/x/1",
]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["bare", "everything"])
@pytest.mark.parametrize("source", OUTSIDE)
def test_sources_outside_are_refused_whatever_else_is_set(
    take: Take, models: Path, state: Path, source: str, options: dict[str, object], in_place: bool
) -> None:
    """Optional fields switch no check off, and nothing is left behind."""
    (models.parent / "secret").mkdir()
    (models.parent / "secret" / "model.onnx").write_text("secret")
    with pytest.raises(BadInput):
        take(source.replace("{models}", str(models)), in_place=in_place, **options)
    assert left_in(state) == []


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["bare", "everything"])
@pytest.mark.parametrize("kind", ["symlink", "folder link", "hard link", "pipe", "backslash"])
def test_hostile_files_are_refused_whatever_else_is_set(
    take: Take, models: Path, state: Path, kind: str, options: dict[str, object], in_place: bool
) -> None:
    """What could lead out of the artifact, or block; the file outside is never opened."""
    outside = models.parent / "secret.txt"
    outside.write_text("secret")
    bad = models / "v1" / ("a\\b" if kind == "backslash" else "bad")
    if kind == "symlink":
        bad.symlink_to(outside)
    elif kind == "folder link":
        bad.symlink_to(models.parent)
    elif kind == "hard link":
        os.link(outside, bad)
    elif kind == "pipe":
        os.mkfifo(bad)
    else:
        bad.write_text("x")
    opened = audited(
        f"ingest({str(models / 'v1')!r}, Path({str(state)!r}), [Path({str(models)!r})], find, "
        f"in_place={in_place}, **{options!r})"
    )
    assert "LoadError" in opened
    assert str(outside) not in opened
    assert str(bad) not in opened
    assert left_in(state) == []


def audited(call: str) -> str:
    """Run a call in a process of its own; its error and the name of every file that it opened."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from hotswap.sources.ingest import ingest\n"
        "from tests.integration.test_ingest import find\n"
        "opened = []\n"
        "def hook(event, arguments):\n"
        "    if event == 'open': opened.append(str(arguments[0]))\n"
        "sys.addaudithook(hook)\n"
        f"try: {call}\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print(opened)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_the_audit_sees_what_is_opened(models: Path, state: Path) -> None:
    """The test above could fail."""
    call = f"ingest({str(models / 'v1')!r}, Path({str(state)!r}), [Path({str(models)!r})], find)"
    opened = audited(call)
    assert str(models / "v1" / "model.onnx") in opened
    assert ".git" not in opened


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "a\\..\\evil", "C:evil"])
def test_hostile_archives_leave_nothing(
    take: Take, models: Path, state: Path, name: str, tmp_path: Path
) -> None:
    """Neither outside, nor in the state directory."""
    pack(models / "m.tar.gz", {"model.onnx": b"x", name: b"evil"})
    with pytest.raises(LoadError, match="evil"):
        take(models / "m.tar.gz")
    assert left_in(state) == []
    assert not [path for path in tmp_path.rglob("*evil*") if path.is_file()]


def test_a_bomb_leaves_nothing(
    take: Take, models: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small archive that unpacks to a lot of zeros."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("model.onnx")
        member.size = 80 * 1024 * 1024
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    (models / "m.tar.gz").write_bytes(gzip.compress(data.getvalue(), 9))
    with pytest.raises(LoadError, match="times its compressed size"):
        take(models / "m.tar.gz")
    assert left_in(state) == []


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite", "replace", "add", "remove"])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_source_that_changes_meanwhile_is_refused(
    take: Take, models: Path, state: Path, change: str, in_place: bool
) -> None:
    """Whatever is done to it while it is read, the answer is that it is being written."""
    file = models / "v1" / "data" / "large.bin"

    def meddle(_done: int, _total: int) -> None:
        if change == "grow":
            with file.open("ab") as opened:
                opened.write(b"more")
        elif change == "shrink":
            os.truncate(file, 10)
        elif change == "rewrite":
            file.write_bytes(bytes(3_000_000))
        elif change == "replace":
            other = file.with_name("other")
            other.write_bytes(file.read_bytes())
            other.replace(file)
        elif change == "add":
            file.with_name("new").write_text("x")
        else:
            file.unlink(missing_ok=True)

    with pytest.raises(LoadError, match=r"is being written|cannot be read"):
        take(models / "v1", progress=meddle, in_place=in_place)
    assert left_in(state) == []


@pytest.mark.parametrize("where", ["write", "fsync", "mkdir"])
def test_a_full_disk_is_told_and_leaves_nothing(
    take: Take, models: Path, state: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear line, no half of a version, and afterwards it works."""

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (state / "artifacts").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, where, full)
        with pytest.raises(StoreError, match="no space left") as caught:
            take(models / "v1")
    assert str(state) in str(caught.value)
    assert left_in(state) == []
    verify(take(models / "v1").artifact)


def test_a_full_disk_while_unpacking_leaves_nothing(
    take: Take, models: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive grows while it is unpacked."""
    pack(models / "m.tgz", {"model.onnx": b"x" * 100_000})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "copyfileobj", full)
        with pytest.raises(StoreError, match="no space left"):
            take(models / "m.tgz")
    assert left_in(state) == []


def test_a_state_directory_that_cannot_be_written_is_told(take: Take, models: Path) -> None:
    """A file in its place."""
    (models.parent / "state").write_text("")
    with pytest.raises(StoreError, match=r"state directory .* cannot be written"):
        take(models / "v1")


def test_what_a_killed_process_left_is_cleared_away(
    take: Take, models: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill -9 in the middle of copying leaves a hidden folder that the next one removes."""
    script = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from hotswap.sources.ingest import ingest\n"
        "from tests.integration.test_ingest import find\n"
        "def die(done, total): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"ingest({str(models / 'v1')!r}, Path({str(state)!r}), [Path({str(models)!r})], find,\n"
        "       progress=die)"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert killed.returncode == -9
    (left,) = left_in(state)
    assert left.startswith(".staging-")
    digest = take(models / "v1").artifact.digest
    assert left_in(state) == [digest.removeprefix("sha256:")]


def test_versions_are_taken_in_without_what_only_posix_has(models: Path, state: Path) -> None:
    """The embedded engine runs on Windows too: no such flags, folders that cannot be opened."""
    (state / "artifacts" / ".staging-1-left").mkdir(parents=True)
    (models / "v1" / "version.yaml").write_text("changelog: new")
    script = (
        "import os, stat\n"
        "from pathlib import Path\n"
        "import tests.integration.test_ingest as fakes\n"
        "import importlib\n"
        "for name in ('O_NONBLOCK', 'O_NOFOLLOW', 'O_CLOEXEC', 'fchmod', 'kill'):\n"
        "    delattr(os, name)\n"
        "opened = os.open\n"
        "def opens_files(path, flags, mode=0o777, **more):\n"
        "    assert not os.path.isdir(path), 'a folder was opened'\n"
        "    return opened(path, flags, mode, **more)\n"
        "os.open = opens_files\n"
        "from hotswap.sources import copying, ingest, manifest, settings\n"
        "for module in (manifest, settings, copying, ingest):\n"
        "    importlib.reload(module)\n"
        "manifest.WINDOWS = copying.WINDOWS = ingest._WINDOWS = True\n"
        f"taken = ingest.ingest(Path({str(models / 'v1')!r}), Path({str(state)!r}),\n"
        f"                      [Path({str(models)!r})], fakes.find)\n"
        "manifest.verify(taken.artifact)\n"
        "print(taken.settings.changelog)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], check=False, timeout=60, capture_output=True, text=True
    )
    assert ran.stdout == "new\n", ran.stderr
    assert ".staging-1-left" in left_in(state), "whose process may live is not known there"


def test_the_state_directory_inside_of_the_artifact_is_refused(models: Path) -> None:
    """It would be copied into itself; hidden (``.hotswap``) it is no part of the artifact."""
    with pytest.raises(BadInput, match="state directory lies within"):
        ingest(models / "v1", models / "v1" / "state", [models], find)
    verify(ingest(models / "v1", models / "v1" / ".hotswap", [models], find).artifact)


@pytest.mark.parametrize(
    ("content", "kind"), [("trust: true", ConfigError), ("instances: 0", ConfigError)]
)
def test_bad_settings_are_told_before_anything_is_copied(
    take: Take, models: Path, state: Path, content: str, kind: type[HotswapError]
) -> None:
    """version.yaml is read first."""
    (models / "v1" / "version.yaml").write_text(content)
    with pytest.raises(kind, match=r"version\.yaml"):
        take(models / "v1")
    assert left_in(state) == []


def test_folders_without_files_are_refused(take: Take, models: Path, state: Path) -> None:
    """There is nothing to serve."""
    (models / "empty").mkdir()
    with pytest.raises(LoadError, match="there is no file in empty"):
        take(models / "empty")
    assert left_in(state) == []


def test_a_clone_is_hashed_like_a_copy(
    take: Take, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system shares blocks, the digest is of the clone's content."""
    import fcntl

    copied = take(models / "v1").artifact
    cloned = []

    def clone(writer: int, request: int, reader: int) -> int:
        assert request == copying._FICLONE
        cloned.append(os.pwrite(writer, os.pread(reader, 10_000_000, 0), 0))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    assert take(models / "v1").artifact == copied
    assert cloned == [3_000_000]


def test_a_discarded_artifact_is_gone(take: Take, models: Path, state: Path) -> None:
    """Its copy and nothing else; a second time there is none."""
    artifact = take(models / "v1").artifact
    (models / "v1" / "model.onnx").write_bytes(b"other")
    other = take(models / "v1").artifact
    assert discard(artifact, state)
    assert not discard(artifact, state)
    verify(other)
    assert left_in(state) == [Path(other.folder).name]


def test_discarding_removes_nothing_but_copies(take: Take, models: Path, state: Path) -> None:
    """Not an artifact in place, not what a forged record names."""
    copied = take(models / "v1").artifact
    in_place = take(models / "v1", in_place=True).artifact
    assert not discard(in_place, state)
    verify(in_place)
    verify(copied)
    for digest in ("sha256:", "sha256:..", "sha256:../../models", "%252e%252e%252f", "\\..\\.."):
        folder = str(state / "artifacts" / digest.removeprefix("sha256:"))
        forged = msgspec.structs.replace(copied, digest=digest, folder=folder)
        with pytest.raises(BadInput, match="is no digest"):
            discard(forged, state)
    verify(copied)
