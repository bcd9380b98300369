"""Commands about the server itself, and the root of the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hotswap.cli import serve
from hotswap.config import Settings
from hotswap.testing.fake_control import FakeControl
from tests.unit.cli.conftest import Run


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the supervisor was started with, instead of it."""
    calls: list[Any] = []
    module = ModuleType("hotswap.app.supervisor")

    def run(settings: Settings, reread: Any) -> int:
        calls.append((settings, reread))
        return 7

    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hotswap.app.supervisor", module)
    return calls


def test_every_setting_is_a_flag_of_serve(bare: Run) -> None:
    """Whatever can be set can be set on the command line."""
    shown = bare("serve", "--help").stdout
    for name in Settings.model_fields:
        assert name == "models" or f"--{name.replace('_', '-')}" in shown


def test_serve_starts_the_supervisor_with_its_flags(bare: Run, served: list[Any]) -> None:
    """Flags become settings; its exit status is the command's."""
    flags = ["--port", "0", "--trust-code", "--limit-rows", "9", "--log-level", "debug"]
    lists = ["--allowed-hosts", "a.example", "--allowed-hosts", "b.example"]
    result = bare("serve", "models", *flags, *lists, "--poll-seconds", "0.5")
    assert result.exit_code == 7
    settings = served[0][0]
    assert settings.models == Path("models").absolute()
    assert (settings.port, settings.trust_code, settings.limit_rows) == (0, True, 9)
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert (settings.log_level, settings.poll_seconds) == ("debug", 0.5)
    assert settings.insecure is False


def test_serve_can_read_its_settings_again(bare: Run, served: list[Any], tmp_path: Path) -> None:
    """For a reload: the same flags over a file that has changed."""
    config = tmp_path / "server.yaml"
    config.write_text("log_level: error\n")
    bare("serve", "--port", "0", "--config", str(config))
    settings, reread = served[0]
    config.write_text("log_level: debug\nport: 5\n")
    assert (settings.log_level, reread().log_level, reread().port) == ("error", "debug", 0)


def test_serve_with_json_logs_json(bare: Run, served: list[Any]) -> None:
    """--json is --log-format json."""
    bare("serve", "--json")
    assert served[0][0].log_format == "json"


@pytest.mark.parametrize(
    ("args", "says", "code"),
    [
        (["--port", "x"], "error: --port: must be a valid integer", 1),
        (["--host", "0.0.0.0"], "error: other machines can reach 0.0.0.0", 1),
        (["--prot", "1"], "error: No such option: --prot", 2),
        (["a", "b"], "error: Got unexpected extra argument", 2),
    ],
)
def test_bad_flags_are_one_line(
    bare: Run, served: list[Any], args: list[str], says: str, code: int
) -> None:
    """Nothing is started; 1 for a bad value, 2 for a bad command line."""
    result = bare("serve", *args)
    assert result.exit_code == code
    assert result.stderr.startswith(says)
    assert len(result.stderr.splitlines()) == 1
    assert served == []


@pytest.mark.parametrize("command", ["serve", "reload"])
def test_windows_is_told_what_works_there(
    bare: Run, served: list[Any], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """No server there, and a word about what there is."""
    monkeypatch.setattr(sys, "platform", "win32")
    result = bare(command)
    assert result.exit_code == 1
    assert "needs Linux or macOS" in result.stderr


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Signals that were sent, instead of sending them."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    return sent


def test_reload_signals_the_supervisor(
    run: Run, control: FakeControl, signalled: list[tuple[int, int]]
) -> None:
    """SIGHUP to the process that the server names."""
    control.details["supervisor_pid"] = 4242
    assert json.loads(run("reload", "--json").stdout) == {"pid": 4242, "signal": "SIGHUP"}
    assert signalled == [(4242, signal.SIGHUP)]


def test_reload_finds_the_supervisor_by_its_lock(
    bare: Run, tmp_path: Path, signalled: list[tuple[int, int]]
) -> None:
    """When control does not answer, the state directory tells."""
    command = ("reload", "--url", "http://127.0.0.1:9", "--state-dir", str(tmp_path))
    missing = bare(*command)
    assert missing.exit_code == 1
    assert "no server is running on the state directory" in missing.stderr
    (tmp_path / "lock").write_text("4243")
    assert bare(*command).exit_code == 0
    assert signalled == [(4243, signal.SIGHUP)]


def test_reload_knows_when_the_process_is_not_here(
    run: Run, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server in a container has process ids of its own."""
    control.details["supervisor_pid"] = 4242
    for problem, says in (
        (ProcessLookupError, "there is no process 4242"),
        (PermissionError, "belongs to another user"),
    ):

        def refuse(pid: int, number: int, problem: type[OSError] = problem) -> None:
            raise problem

        monkeypatch.setattr(os, "kill", refuse)
        result = run("reload")
        assert result.exit_code == 1
        assert says in result.stderr


class _Checked:
    def __init__(self, version: str, ok: bool, message: str) -> None:
        self.model, self.version, self.ok, self.message = "fraud", version, ok, message
        self.seconds = 0.5


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the check was asked for, instead of it: v1 is good, v2 is not."""
    calls: list[Any] = []
    module = ModuleType("hotswap.app.check")

    def check_models(path: Path, settings: Settings, on_result: Any) -> bool:
        calls.append((path, settings))
        on_result(_Checked("v1", True, "sklearn, 2 inputs"))
        on_result(_Checked("v2", False, "ValueError: not a model"))
        return False

    module.check_models = check_models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hotswap.app.check", module)
    return calls


def test_check_tells_of_each_version_and_fails_if_one_does(bare: Run, checked: list[Any]) -> None:
    """A line a version, and exit status 1."""
    result = bare("check", "models", "--trust-code")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "✓ fraud/v1  sklearn, 2 inputs  0.50 s",
        "✗ fraud/v2  ValueError: not a model",
    ]
    assert checked[0][1].trust_code is True


def test_check_prints_json(bare: Run, checked: list[Any]) -> None:
    """The same, for programs."""
    answer = json.loads(bare("check", "models", "--json").stdout)
    assert answer["ok"] is False
    assert [version["ok"] for version in answer["versions"]] == [True, False]


def test_the_demos_exit_status_is_the_commands(bare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """--exit and --json are passed on; with --json progress leaves stdout to programs."""
    calls: list[Any] = []
    module = ModuleType("hotswap.app.demo")

    def main(*, exit: bool, as_json: bool, console: Any, screen: Any) -> int:
        assert callable(screen)
        calls.append((exit, as_json, console.stderr))
        return 3

    module.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hotswap.app.demo", module)
    assert bare("demo").exit_code == 3
    assert bare("demo", "--exit", "--json").exit_code == 3
    assert calls == [(False, False, False), (True, True, True)]


def test_only_the_commands_that_exist_are_there(bare: Run) -> None:
    """A command of a later release is no command."""
    shown = bare("--help").stdout
    for name in (
        "serve",
        "demo",
        "check",
        "models",
        "switch",
        "rollback",
        "predict",
        "reload",
        "rollout",
        "plan",
        "apply",
        "feedback",
        "report",
        "replay",
    ):
        assert f" {name} " in shown
    for name in ("token", "gateway"):
        result = bare(name)
        assert result.exit_code == 2
        assert f"error: No such command '{name}'" in result.stderr


def test_every_command_takes_json(bare: Run) -> None:
    """--json is in each command's help."""
    groups = {"models": "list show add remove load unload convert"}
    commands = [[group, name] for group, names in groups.items() for name in names.split()]
    commands += [
        [name]
        for name in [
            "serve",
            "demo",
            "check",
            "reload",
            "switch",
            "rollback",
            "predict",
            "plan",
            "apply",
            "feedback",
        ]
    ]
    for command in commands:
        result = bare(*command, "--help")
        assert result.exit_code == 0
        assert "--json" in result.stdout, command


def test_the_version_is_printed(bare: Run) -> None:
    """And nothing else."""
    result = bare("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("hotswap ")


def test_help_imports_nothing_heavy() -> None:
    """The command line starts at once: libraries wait until a command needs them."""
    script = (
        "import sys, hotswap.cli.root as root\n"
        "try: root.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'fastapi', 'httpx2', 'pydantic_settings', 'uvicorn', 'sqlalchemy'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    root = Path(serve.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_shell_completes_the_names_of_models_and_versions(
    url: str, control: FakeControl
) -> None:
    """From the running server; without one there is simply nothing."""
    import asyncio

    asyncio.run(control.register("fraud", "/m/x", version="v1"))
    asyncio.run(control.register("churn", "/m/y", version="v2"))
    assert _completed("hotswap switch fr", url) == ["fraud"]
    assert _completed("hotswap switch fraud ", url) == ["v1"]
    assert _completed("hotswap switch fr", "http://127.0.0.1:9") == []


def _completed(line: str, url: str) -> list[str]:
    """What the shell is told for ``line``."""
    root = Path(serve.__file__).parents[2]
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "HOTSWAP_URL": url,
        "_HOTSWAP_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": line,
    }
    result = subprocess.run(
        [sys.executable, "-m", "hotswap"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in (0, 1), result.stderr
    return [name for name in ("fraud", "churn", "v1", "v2") if f'"{name}"' in result.stdout]
