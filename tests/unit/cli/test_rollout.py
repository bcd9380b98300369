"""``hotswap rollout`` against a real server over a fake control service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from typer.testing import Result

from hotswap.cli import output
from hotswap.cli.client import CommandFailed
from hotswap.cli.rollout_options import read_config, read_metric, read_steps
from hotswap.core.rollout_views import RolloutView
from hotswap.testing.fake_control import FakeControl
from tests.unit.cli.conftest import Run
from tests.unit.web.samples import HOSTILE, metric


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def _failed(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def fraud(run: Run) -> None:
    """A model with an active version and two more."""
    for version in ("v1", "v2", "v3"):
        assert run("models", "add", "fraud", f"/m/{version}", "--version", version).exit_code == 0
    assert run("switch", "fraud", "v1").exit_code == 0


def _started(run: Run, *more: str) -> str:
    return str(_json(run("rollout", "start", "fraud", "v2", "--json", *more))["id"])


def _body(control: FakeControl) -> dict[str, Any]:
    """Of the latest start."""
    body: dict[str, Any] = [call[1] for call in control.calls if call[0] == "start_rollout"][-1]
    return body


@pytest.mark.usefixtures("fraud")
def test_a_start_sends_everything_that_it_was_given(
    run: Run, control: FakeControl, tmp_path: Path
) -> None:
    """Each option is one part of the body; the file's settings are those not given otherwise."""
    file = tmp_path / "settings.yaml"
    file.write_text("max_error_rate_threshold: 0.2\nevaluation_period_minutes: 1\n")
    options = "--steps 5,hold=10m,25,requests=500,approval,50 --alpha 0.01 --on-running replace"
    options += " --on-insufficient rollback --bake-seconds 60 --watch-seconds 30 --seed 7"
    options += " --deadline-seconds 90 --min-requests 10 --budget-ms 50 --key-input user --force"
    options += " --config evaluation_period_minutes=2 --guardrail latency_p99:max_ratio=1.1"
    options += (
        " --guardrail error_rate:max=0.1,dry_run=true --objective latency:min_improvement=0.1"
    )
    options += f" --idempotency-key once --config-file {file}"
    run("rollout", "start", "fraud", "v2", *options.split(), "--json")
    assert _body(control) == {
        "model": "fraud",
        "version": "v2",
        "strategy": "canary",
        "config": {"max_error_rate_threshold": 0.2, "evaluation_period_minutes": 2},
        "steps": [5, {"hold_minutes": 10}, 25, {"requests": 500}, {"approval": True}, 50],
        "guardrails": [
            {"metric": "latency_p99", "max_ratio": 1.1},
            {"metric": "error_rate", "max": 0.1, "dry_run": True},
        ],
        "objectives": [{"metric": "latency", "min_improvement": 0.1}],
        "alpha": 0.01,
        "on_running": "replace",
        "on_insufficient": "rollback",
        "bake_seconds": 60.0,
        "watch_seconds": 30.0,
        "deadline_seconds": 90.0,
        "min_requests": 10,
        "budget_ms": 50.0,
        "key_input": "user",
        "seed": 7,
        "force": True,
        "idempotency_key": "once",
    }


@pytest.mark.usefixtures("fraud")
def test_a_start_that_is_given_nothing_leaves_the_defaults_to_the_server(
    run: Run, control: FakeControl
) -> None:
    """The body has no key of which nothing was said, and the answer says how to follow it."""
    result = run("rollout", "start", "fraud", "v2")
    assert _body(control) == {"model": "fraud", "version": "v2", "strategy": "canary"}
    assert "started canary of fraud/v2: r-1" in result.stdout
    assert "hotswap rollout watch r-1" in result.stdout


@pytest.mark.usefixtures("fraud")
def test_a_refused_start_shows_the_servers_sentence(run: Run) -> None:
    """Beside a running rollout: one line that names it, and nothing on stdout."""
    id = _started(run)
    assert id in _failed(run("rollout", "start", "fraud", "v3"))
    assert "strategy must be one of" in _failed(run("rollout", "start", "fraud", "v3", "-s", "odd"))


@pytest.mark.usefixtures("fraud")
def test_a_dry_run_shows_the_plan_and_starts_nothing(run: Run, control: FakeControl) -> None:
    """Steps, the shortest duration, the odds, and what cannot be told; no rollout exists after."""
    shown = run("rollout", "start", "fraud", "v2", "--steps", "5,hold=2m,50", "--dry-run").stdout
    for text in ("nothing was started", "candidate at 5 %", "2 min", "cannot be told", "5 %"):
        assert text in shown
    assert "there is no traffic now" in shown
    assert control.views == {}
    plan = _json(run("rollout", "start", "fraud", "v2", "--dry-run", "--json"))
    assert plan["steps"][0]["kind"] == "set_weight"
    assert "--dry-run" in _failed(run("rollout", "start", "fraud", "v2", "--dry-run", "--watch"))


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("5,25%,50.5", [5, 25, 50.5]),
        ("shadow=20, requests=10, weight=5", [{"shadow_percentage": 20}, {"requests": 10}, {"weight": 5}]),
        ("hold=90,hold=1.5h,hold=2min", [{"hold_seconds": 90}, {"hold_hours": 1.5}, {"hold_minutes": 2}]),
        ('[5, {"hold_seconds": 3}]', [5, {"hold_seconds": 3}]),
    ],
)  # fmt: skip
def test_steps_are_read(text: str, steps: list[Any]) -> None:
    """Weights and the other steps, in the API's form."""
    assert read_steps(text) == steps


@pytest.mark.parametrize("text", ["", "5,,6", "five", "hold=", "hold=5parsecs", "approval=1", "[5"])
def test_steps_that_are_none_are_refused(text: str) -> None:
    """With a sentence that says what is a step, or what is wrong with the JSON."""
    with pytest.raises(CommandFailed, match=r"is not a step|not valid JSON"):
        read_steps(text)


@pytest.mark.parametrize("text", [":max=1", "m:max", "m:=1", "m:max=1,max=2", "m:metric=2", "{1"])
def test_guardrails_that_are_none_are_refused(text: str) -> None:
    """With a sentence that names the option."""
    with pytest.raises(CommandFailed, match="--guardrail"):
        read_metric("--guardrail", text)


def test_a_guardrail_may_be_a_json_object() -> None:
    """For what no short form can hold, such as a query with commas."""
    text = '{"metric": "refunds", "query": "sum(a, b)", "max": 3}'
    assert read_metric("--guardrail", text) == json.loads(text)


@pytest.mark.parametrize(
    ("pairs", "content", "match"),
    [
        (["a"], None, "key=value"),
        (["a=1", "a=2"], None, "twice"),
        ([], b"- 1", "keys and values"),
        ([], b"{", "neither YAML nor JSON"),
        ([], b"\xff", "UTF-8"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(
    tmp_path: Path, pairs: list[str], content: bytes | None, match: str
) -> None:
    """Before anything is sent."""
    file = tmp_path / "c.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CommandFailed, match=match):
        read_config(pairs, file if content is not None else None)
    with pytest.raises(CommandFailed, match="cannot be read"):
        read_config([], tmp_path / "missing")


@pytest.mark.usefixtures("fraud")
def test_the_list_shows_each_rollout(run: Run, control: FakeControl) -> None:
    """A line each, newest first; of one model alone if it is named."""
    assert "there is no rollout" in run("rollout", "list").stdout
    first = _started(run)
    run("rollout", "abort", first)
    second = _json(run("rollout", "start", "fraud", "v3", "--json"))["id"]
    lines = run("rollout", "list", "--model", "fraud").stdout.splitlines()
    rows = [line for line in lines if line.lstrip().startswith("r-")]
    assert [row.split()[0] for row in rows] == [second, first]
    assert "RolledBack (aborted)" in rows[1]
    assert "v1 → v3" in rows[0]
    listed = _json(run("rollout", "list", "--json"))["rollouts"]
    assert [each["id"] for each in listed] == [second, first]


@pytest.mark.usefixtures("fraud")
def test_the_status_shows_metrics_and_why(run: Run, control: FakeControl) -> None:
    """Steps, weights, each metric's figures and the sentence; also by the model's name."""
    id = _started(run, "--steps", "5,50")
    control.see(id, metrics=(metric(verdict="insufficient"),), message="it goes well")
    shown = run("rollout", "status", "fraud").stdout
    for text in ("● ", "candidate at 5 %", "8.01 ×", "1.92 to 33.4 ×", "37:1", "insufficient"):
        assert text in shown
    for text in ("it goes well", "4.13 % (17/412)", "generation"):
        assert text in shown
    assert _json(run("rollout", "status", id, "--json"))["id"] == id


@pytest.mark.usefixtures("fraud")
def test_the_status_fits_a_narrow_terminal(
    run: Run, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is longer than 80 columns, and no word of the table is broken."""
    id = _started(run, "--steps", "5,25,50")
    control.see(id, metrics=(metric(verdict="insufficient"),))
    monkeypatch.setattr(output, "_stdout", lambda: Console(width=80))
    lines = run("rollout", "status", id).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = [line for line in lines if line.startswith("error_rate ")]
    assert row.endswith("insufficient")


@pytest.mark.usefixtures("fraud")
def test_what_names_no_rollout_is_said(run: Run) -> None:
    """An unknown id, a model without rollouts, and what is no name."""
    assert "no rollout 'r-9'" in _failed(run("rollout", "status", "r-9"))
    assert "no rollout 'fraud'" in _failed(run("rollout", "pause", "fraud"))
    assert "not valid" in _failed(run("rollout", "status", "../x"))


@pytest.mark.usefixtures("fraud")
def test_commands_are_carried_out_and_shown(run: Run, control: FakeControl) -> None:
    """Each sends what it was given, and prints phase, reason and message."""
    id = _started(run, "--steps", "5,hold=1h,50")
    options = ["--generation", "1", "--why", "lunch", "--idempotency-key", "k", "--force"]
    shown = run("rollout", "pause", "fraud", *options).stdout
    assert control.calls[-1][:6] == ("pause", id, 1, "k", True, "lunch")
    assert "Paused (user)" in shown
    assert "paused by a person" in shown
    assert "Progressing" in run("rollout", "resume", id).stdout
    assert "Progressing" in run("rollout", "skip", id).stdout
    assert _json(run("rollout", "promote", id, "--json"))["phase"] == "Baking"
    assert "RolledBack (aborted)" in run("rollout", "abort", id).stdout
    assert _json(run("rollout", "retry", id, "--json"))["attempt"] == 2


@pytest.mark.usefixtures("fraud")
def test_an_illegal_or_stale_command_shows_the_servers_sentence(run: Run) -> None:
    """It fails, and says what the state is."""
    id = _started(run)
    assert "cannot resume: it is Progressing" in _failed(run("rollout", "resume", id))
    assert "look again" in _failed(run("rollout", "abort", id, "--generation", "99"))


@pytest.mark.usefixtures("fraud")
def test_hostile_text_neither_styles_nor_steers_the_terminal(
    run: Run, control: FakeControl
) -> None:
    """Markup is shown as it stands, control characters are replaced."""
    id = _started(run)
    control.see(id, message=HOSTILE, reason=HOSTILE, metrics=(metric(sentence=HOSTILE),))
    for command in (["status", id], ["list"], ["pause", id, "--force"]):
        result = run("rollout", *command)
        assert result.exit_code == 0, result.stderr
        assert "\x1b" not in result.stdout
        assert "\u202e" not in result.stdout
    assert "[bold]b[/bold]" in run("rollout", "status", id).stdout


@pytest.mark.parametrize(
    "command",
    ["start", "list", "status", "watch", "promote", "pause", "resume", "abort", "retry", "skip",
     "verify", "report"],
)  # fmt: skip
def test_every_command_explains_itself(bare: Run, command: str) -> None:
    """With help, an address and JSON."""
    shown = bare("rollout", command, "--help")
    assert shown.exit_code == 0
    assert "--url" in shown.stdout
    assert "--json" in shown.stdout


@pytest.mark.usefixtures("fraud")
def test_a_models_rollout_is_shown_in_full(
    run: Run, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server's list may leave metrics out; what is found by its model's name has them."""
    id = _started(run)
    control.see(id, metrics=(metric(),))

    async def brief(model: str | None = None) -> list[RolloutView]:
        return [msgspec.structs.replace(view, metrics=()) for view in control.views.values()]

    monkeypatch.setattr(control, "rollouts", brief)
    assert "8.01 ×" in run("rollout", "status", "fraud").stdout
