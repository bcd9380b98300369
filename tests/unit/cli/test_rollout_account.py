"""``hotswap rollout verify`` and ``report``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotswap.core.decide import decide
from hotswap.core.journal import Entry, Record
from hotswap.core.plan import compile_steps
from hotswap.core.rollout import Observation, Rollout, Status
from hotswap.core.rollout_views import JournalView
from hotswap.core.strategy import parse
from hotswap.testing.fake_control import FakeControl
from tests.unit.cli.conftest import Run
from tests.unit.web import samples


def _journal() -> list[JournalView]:
    """The beginning of a rollout, as the machine decides it."""
    spec = parse({"model": "fraud", "version": "v2", "steps": [5, 50]})
    status = Status(message="it begins")
    rollout = Rollout("r-1", spec, compile_steps(spec), status, "v1")
    seen = Observation(active="v1", ready=True)
    after = decide(rollout, seen, 0.5).status
    entries = [
        Entry(1, 1.7e9, "started", Record(rollout, status)),
        Entry(2, 1.7e9 + 1, "decided", Record(rollout, after, seen, 0.5)),
    ]
    return [entry.view() for entry in entries]


def _tampered() -> list[JournalView]:
    """The same, in which one decision was changed afterwards."""
    first, second = _journal()
    after = {**second.record["after"], "step": 4}
    return [first, msgspec.structs.replace(second, record={**second.record, "after": after})]


@pytest.fixture
def started(run: Run, control: FakeControl) -> str:
    """A rollout with a journal."""
    for version in ("v1", "v2"):
        run("models", "add", "fraud", f"/m/{version}", "--version", version)
    run("switch", "fraud", "v1")
    answer = json.loads(run("rollout", "start", "fraud", "v2", "--steps", "5,50", "--json").stdout)
    control.journals[answer["id"]] = _journal()
    return str(answer["id"])


def test_a_journal_is_verified(run: Run, started: str) -> None:
    """Each decision is made again; by the rollout's id or the model's name."""
    assert "verified 1 decision follows" in run("rollout", "verify", "fraud").stdout
    answer = json.loads(run("rollout", "verify", started, "--json").stdout)
    assert answer == {"decisions": 1, "ok": True, "mismatches": []}


def test_a_decision_that_does_not_follow_is_an_error(
    run: Run, control: FakeControl, started: str
) -> None:
    """Its number and what differs are shown, and the exit code is 1, with JSON too."""
    control.journals[started] = _tampered()
    result = run("rollout", "verify", started)
    assert result.exit_code == 1
    assert "entry 2: " in result.stdout
    assert "step" in result.stdout
    assert "does not verify: 1 entry of 2" in result.stderr
    result = run("rollout", "verify", started, "--json")
    assert result.exit_code == 1
    assert [each["number"] for each in json.loads(result.stdout)["mismatches"]] == [2]


def test_a_saved_journal_is_verified_without_a_server(
    run: Run, bare: Run, started: str, tmp_path: Path
) -> None:
    """What was saved is what the server had."""
    file = tmp_path / "journal.json"
    assert run("rollout", "verify", started, "--save", str(file)).exit_code == 0
    away = bare("rollout", "verify", "--journal", str(file), "--url", "http://127.0.0.1:1")
    assert away.exit_code == 0
    assert "verified 1 decision follows" in away.stdout


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "is not JSON"),
        (b"[]", "the journal is empty"),
        (b"3", "this is not a journal"),
        (b'[{"number": "x"}]', "this is not a journal"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_journal_is_said(
    bare: Run, tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    """One sentence, and exit code 1: an empty journal proves nothing."""
    file = tmp_path / "j.json"
    if content is not None:
        file.write_bytes(content)
    result = bare("rollout", "verify", "--journal", str(file))
    assert result.exit_code == 1
    assert sentence in result.stderr


def test_verify_needs_something_to_verify(bare: Run) -> None:
    """An id or a file."""
    assert "give the id of a rollout" in bare("rollout", "verify").stderr


@pytest.fixture
def told(control: FakeControl, started: str) -> str:
    """A rollout with a long story."""
    control.views[started] = samples.rollout(id=started)
    control.journals[started] = samples.journal()
    return started


def test_a_report_is_one_html_file_unless_told_otherwise(
    run: Run, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the working folder, named after the rollout."""
    monkeypatch.chdir(tmp_path)
    result = run("rollout", "report", "fraud")
    assert "wrote rollout-r-1.html" in result.stdout
    (file,) = tmp_path.iterdir()
    assert file.read_text("utf-8").startswith("<!doctype html>")


def test_a_markdown_report_has_its_plots_beside_it(run: Run, told: str, tmp_path: Path) -> None:
    """Each file that it embeds was written, and no other."""
    target = tmp_path / "account.md"
    answer: dict[str, Any] = json.loads(
        run("rollout", "report", told, "--output", str(target), "--json").stdout
    )
    assert answer["file"] == str(target)
    plots = {path.name for path in tmp_path.glob("*.svg")}
    assert {Path(path).name for path in answer["plots"]} == plots
    text = target.read_text("utf-8")
    assert plots
    assert all(f"]({name})" in text for name in plots)


def test_a_report_can_be_printed(run: Run, told: str) -> None:
    """As Markdown it then has its plots' descriptions."""
    shown = run("rollout", "report", told, "--output", "-", "--format", "markdown").stdout
    assert shown.startswith("# fraud: v1 → v2")
    assert ".svg" not in shown
    assert run("rollout", "report", told, "-o", "-").stdout.startswith("<!doctype html>")


def test_a_report_that_cannot_be_written_is_an_error(run: Run, told: str, tmp_path: Path) -> None:
    """As is an unknown format."""
    missing = tmp_path / "missing" / "a.html"
    assert "cannot be written" in run("rollout", "report", told, "-o", str(missing)).stderr
    assert "html or markdown" in run("rollout", "report", told, "--format", "pdf").stderr
