"""``hotswap report``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hotswap.testing.fake_control import FakeControl
from tests.unit.cli.conftest import Run
from tests.unit.web import quality_samples as samples


@pytest.fixture(autouse=True)
async def _model(control: FakeControl) -> None:
    await control.register("fraud", "/m/v1", version="v1")
    control.qualities["fraud"] = samples.binary()
    control.calls.clear()


def test_sentences_first_then_figures(run: Run) -> None:
    """What is shown, metrics, bounds, agreement, parts, and five rows that differ."""
    result = run("report", "fraud")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        "fraud: v1 → v2",
        "v2 against v1, on 1,200 labelled rows of requests that both were asked.",
        "1,200 of 5,000 recorded rows have their label (24 %); 1,150 of the 2,500 that are due (46 %).",
    ]
    for text in (
        "● A difference in accuracy between v2 and v1 is shown",
        "is damaged after record 12",
        "87.00 %",
        "+0.9 to +3.3 pt",
        "12.5 ms",
        "3,990 of 4,200 rows got the same answer",
        "−50 to −10 pt",
        "request-4",
    ):
        assert text in result.stdout, text
    assert "request-5" not in result.stdout


@pytest.mark.parametrize("name", ["regression", "multiclass", "unlabelled", "alone", "empty"])
def test_whatever_there_is_is_shown(run: Run, control: FakeControl, name: str) -> None:
    """Numbers, classes, no labels, one version, nothing."""
    control.qualities["fraud"] = getattr(samples, name)()
    result = run("report", "fraud")
    assert result.exit_code == 0
    assert result.stdout.startswith("fraud: ")


def test_without_labels_it_says_how_to_send_them(run: Run, control: FakeControl) -> None:
    """By name of the command."""
    control.qualities["fraud"] = samples.unlabelled()
    assert "hotswap feedback FILE" in run("report", "fraud").stdout


def test_what_a_client_sent_does_not_steer_the_terminal(run: Run, control: FakeControl) -> None:
    """Nor is it taken for markup."""
    control.qualities["fraud"] = samples.binary(
        apart=samples.rows_apart(request_id="\x1b[31m[bold]x", label="[/]")
    )
    shown = run("report", "fraud").stdout
    assert "\x1b" not in shown
    assert "[bold]x" in shown


def test_what_the_server_is_asked(run: Run, control: FakeControl) -> None:
    """Durations are seconds from now; an end is a time."""
    assert run("report", "fraud", "--since", "7d").exit_code == 0
    run(
        "report",
        "fraud",
        "--since",
        "36h",
        "--until",
        "30m",
        "--by",
        "a b&c",
        "--versions",
        "v1,v2",
    )
    first, second = control.calls
    assert first == ("quality", "fraud", 604800.0, None, None, None)
    assert second[2] == 129600.0
    assert second[3] > 1.7e9
    assert second[4:] == (("v1", "v2"), "a b&c")


def test_dates_will_do(run: Run, control: FakeControl) -> None:
    """In UTC where they name no zone."""
    run("report", "fraud", "--since", "2023-11-14T22:13:20", "--until", "2023-11-15T00:13:20+01:00")
    (call,) = control.calls
    assert call[2] > 3600
    assert call[3] == pytest.approx(1.7e9 + 3600, abs=0.01)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--since", "soon"), "--since takes how long ago"),
        (("--until", "7 fortnights"), "--until takes how long ago"),
        (("--since", "1h", "--until", "2h"), "ends before it begins"),
        (("--out", "report.pdf"), "--out writes .html, .md or .json"),
        (("--versions", "v1"), "versions takes two different ones"),
    ],
)
def test_what_cannot_be_asked(
    run: Run, control: FakeControl, words: tuple[str, ...], said: str
) -> None:
    """It is said what to give instead."""
    result = run("report", "fraud", *words)
    assert result.exit_code == 1
    assert said in " ".join(result.stderr.split())
    assert control.calls == []


def test_a_server_that_records_nothing(run: Run, control: FakeControl) -> None:
    """The sentence says which setting it lacks; an unknown model is named."""
    control.qualities.clear()
    result = run("report", "fraud")
    assert result.exit_code == 1
    assert "--records on" in result.stderr
    assert "nope" in run("report", "nope").stderr


def test_json_is_what_the_server_answered(run: Run) -> None:
    """All of it."""
    answer = json.loads(run("report", "fraud", "--json").stdout)
    assert answer["differences"][0]["metric"] == "accuracy"
    assert len(answer["apart"]) == 7


@pytest.mark.parametrize(
    ("name", "begin"),
    [("r.html", "<!doctype html>"), ("r.MD", "# fraud"), ("r.json", '{\n "model": "fraud"')],
)
def test_files(run: Run, tmp_path: Path, name: str, begin: str) -> None:
    """In the form that the name says."""
    target = tmp_path / name
    assert f"wrote {target}" in run("report", "fraud", "--out", str(target)).stdout
    assert target.read_text("utf-8").startswith(begin)
    answer = json.loads(run("report", "fraud", "--out", str(target), "--json").stdout)
    assert answer == {"file": str(target)}


def test_a_file_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    """Why not is said."""
    result = run("report", "fraud", "--out", str(tmp_path / "no" / "r.html"))
    assert result.exit_code == 1
    assert "cannot be written" in " ".join(result.stderr.split())
