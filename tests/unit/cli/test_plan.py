"""``hotswap plan``: what it reads, what it shows, and that it does nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import Result

from hotswap.sources.copying import hash_files
from hotswap.sources.manifest import digest_of, list_files
from hotswap.testing.fake_control import FakeControl
from tests.unit.cli.conftest import Run

TEXT = """
models:
  fraud:
    versions:
      v1: {uri: models/v1}
      v2: {uri: ../elsewhere/v2, changelog: better}
    stable: v1
    rollout:
      version: v2
      strategy: canary
      steps: [5, 50]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that two versions and a canary stand in, in a folder of its own."""
    path = tmp_path / "repository" / "hotswap.yaml"
    path.parent.mkdir()
    path.write_text(TEXT)
    return path


def _planned(run: Run, file: Path, *flags: str, code: int = 0) -> dict[str, Any]:
    result = run("plan", str(file), "--json", *flags)
    assert result.exit_code == code, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def _failed(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    return result.stderr


def test_it_shows_what_would_be_done_and_does_nothing(
    run: Run, control: FakeControl, file: Path
) -> None:
    """A line an action, and the command that does it."""
    shown = run("plan", str(file)).stdout
    lines = [" ".join(line.split()) for line in shown.splitlines() if line]
    folder = file.parent
    assert lines == [
        "fraud",
        f"+ v1 register it from {folder}/models/v1",
        f"+ v2 register it from {folder.parent}/elsewhere/v2",
        "~ stable v1: give it all the traffic: none is active yet",
        "~ rollout roll v2 out (canary, without a gate)",
        f"4 changes; nothing was done: hotswap apply {file} does it",
    ]
    assert control.calls == []


def test_programs_read_it_as_json(run: Run, file: Path) -> None:
    """With whether there is anything to do."""
    told = _planned(run, file)
    assert (told["changes"], told["refused"]) == (True, False)
    assert [each["kind"] for each in told["actions"]] == [
        "register",
        "register",
        "switch",
        "rollout",
    ]
    assert told["actions"][0] | {"sentence": ""} == {
        "model": "fraud", "kind": "register", "what": "v1", "version": "v1", "changes": True,
        "sentence": "", "rollout": "",
    }  # fmt: skip


def test_the_exit_code_tells_only_if_it_is_to(run: Run, control: FakeControl, file: Path) -> None:
    """2: something to do. 1: something is refused. 0: nothing."""
    assert _planned(run, file, "--exit-code", code=2)["changes"]
    file.write_text("models: {fraud: {stable: v9}}")
    assert _planned(run, file, "--exit-code", code=1)["refused"]
    assert _planned(run, file, code=0)["refused"]
    assert "1 refused: see the lines with '!'" in run("plan", str(file)).stdout
    file.write_text("models: {fraud: }")
    assert not _planned(run, file, "--exit-code", code=0)["changes"]
    assert "nothing to do" in run("plan", str(file)).stdout


def test_what_lies_on_this_machine_is_compared(run: Run, control: FakeControl, file: Path) -> None:
    """Other content under a registered id is seen before the server is asked."""
    artifact = file.parent / "models" / "v1"
    artifact.mkdir(parents=True)
    (artifact / "model.onnx").write_bytes(b"first")
    assert run("models", "add", "fraud", str(artifact), "--version", "v1").exit_code == 0
    (view,) = control.table["fraud"].versions
    files = list_files(artifact)
    digest = digest_of(hash_files(artifact, files))
    control.table["fraud"] = msgspec.structs.replace(
        control.table["fraud"], versions=(msgspec.structs.replace(view, digest=digest),)
    )
    assert _planned(run, file)["actions"][0]["kind"] == "keep"
    (artifact / "model.onnx").write_bytes(b"trained again")
    assert "versions never change" in _planned(run, file)["actions"][0]["sentence"]
    (artifact / "model.onnx").rename(artifact / "model.tar.gz")  # what is packed, the server judges
    assert _planned(run, file)["actions"][0]["kind"] == "keep"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: {m: {versions: {v1: {uri: x}, v1: {uri: y}}}}", "the key 'v1' is given twice"),
        ("models: {m: }\n---\nmodels: {n: }", "line 2: it holds several documents"),
        ("models: {m: !!python/object:os.system {}}", "could not determine a constructor"),
        ("models: [", "line 1: "),
        ("models: {m: {stabel: v1}}", "models.m has an unknown key 'stabel'"),
        ("models: {1.0: }", "the key 1.0 is a number"),
        ("a: \x00", "not valid YAML"),
        (f"models: {{m: }} # {'x' * 1024 * 1024}", "more than 1048576 bytes"),
    ],
)
def test_a_bad_file_is_named(run: Run, file: Path, text: str, said: str) -> None:
    """With its line or the place in it; no server is asked."""
    file.write_text(text)
    line = _failed(run("plan", str(file)))
    assert str(file) in line
    assert said in line


def test_yaml_is_read_as_people_mean_it(run: Run, file: Path) -> None:
    """Dates stay text, and what two models share is written once."""
    file.write_text(
        "models:\n"
        "  a:\n"
        "    versions: {2024-01-01: {uri: /x}}\n"
        "    rollout: &canary {version: v2, steps: [50], guardrails: [{metric: error_rate}]}\n"
        "  b: {rollout: {<<: *canary, version: v3}}\n"
    )
    told = _planned(run, file)["actions"]
    assert told[0]["version"] == "2024-01-01"
    assert [each["version"] for each in told if each["what"] == "rollout"] == ["v2", "v3"]


def test_an_absent_file_is_named(run: Run, tmp_path: Path) -> None:
    """And what is no file."""
    assert "cannot be read" in _failed(run("plan", str(tmp_path / "none.yaml")))
    assert "cannot be read" in _failed(run("plan", str(tmp_path)))
