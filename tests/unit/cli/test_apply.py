"""``hotswap apply``: once is enough, gates hold, and how a rollout ended is the exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotswap.cli import rollout_watch
from hotswap.errors import LoadError, StoreError
from hotswap.server.admin import create_app
from hotswap.testing.fake_control import FakeControl
from tests.unit.cli.conftest import Run, serving
from tests.unit.web.samples import metric

VERSIONS = "versions: {v1: {uri: /m/v1}, v2: {uri: /m/v2}}, stable: v1"
BODY = "version: v2, strategy: canary, steps: [5, {hold_hours: 1}, 50]"
CANARY = f"models: {{fraud: {{{VERSIONS}, rollout: {{{BODY}}}}}}}"
SHADOW = f"models: {{fraud: {{{VERSIONS}, rollout: {{version: v2, strategy: shadow}}}}}}"


def _gated(gate: str) -> str:
    return f"models: {{fraud: {{{VERSIONS}, rollout: {{{BODY}}}, gate: {gate}}}}}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two versions and a canary of the second."""
    path = tmp_path / "hotswap.yaml"
    path.write_text(CANARY)
    return path


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_watch, "POLL_SECONDS", 0.01)


def _applied(run: Run, file: Path, *flags: str, code: int = 0) -> dict[str, Any]:
    result = run("apply", str(file), "--json", *flags)
    assert result.exit_code == code, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    assert told["ok"] is (code == 0)
    return told


def _verbs(control: FakeControl) -> list[str]:
    return [call[0] for call in control.calls]


def _end(control: FakeControl, phase: str, **changes: Any) -> None:
    """How the latest rollout ends."""
    id = list(control.views)[-1]
    control.see(id, phase=phase, reason="", message=f"so it is {phase}", **changes)


def test_all_of_it_is_done_in_order(run: Run, control: FakeControl, file: Path) -> None:
    """Versions, who is stable, and the rollout; each with a line."""
    result = run("apply", str(file))
    assert result.exit_code == 0, result.output
    assert _verbs(control) == ["register", "register", "switch", "start_rollout"]
    done = [line for line in result.stdout.splitlines() if "✓" in line]
    assert len(done) == 4
    assert "registered v1, sha256:" in done[0]
    assert "nothing → v1" in done[2]
    assert "started rollout r-1 of v2" in done[3]


def test_applying_again_does_nothing(run: Run, control: FakeControl, file: Path) -> None:
    """While the rollout runs, and after it ended well."""
    assert _applied(run, file)["steps"][-1]["changed"]
    before = list(control.calls)
    again = _applied(run, file)
    assert [each["kind"] for each in again["steps"]] == ["keep", "keep", "keep", "follow"]
    control.views["r-1"] = msgspec.structs.replace(control.views["r-1"], phase="Healthy")
    control.table["fraud"] = msgspec.structs.replace(control.table["fraud"], active="v2")
    assert not any(each["changed"] for each in _applied(run, file)["steps"])
    assert control.calls == before
    assert "nothing had to be done" in run("apply", str(file)).stdout


def test_what_was_rolled_back_is_not_tried_again(
    run: Run, control: FakeControl, file: Path
) -> None:
    """It is said, with exit code 1; with --retry it begins again."""
    _applied(run, file)
    _end(control, "RolledBack")
    result = run("apply", str(file))
    assert result.exit_code == 1
    assert "v2 ended RolledBack in rollout r-1: so it is RolledBack" in result.stderr
    assert "--retry" in result.stderr
    assert _verbs(control)[-1] == "start_rollout"
    assert _applied(run, file, "--retry")["steps"][-1]["kind"] == "retry"
    assert _verbs(control)[-1] == "retry"


def test_a_rollout_that_ends_well_is_a_success(run: Run, control: FakeControl, file: Path) -> None:
    """With --wait it is followed to its end."""
    _applied(run, file)
    _end(control, "Healthy")
    control.table["fraud"] = msgspec.structs.replace(control.table["fraud"], active="v2")
    (ended,) = _applied(run, file, "--wait")["rollouts"]
    assert (ended["id"], ended["phase"], ended["good"]) == ("r-1", "Healthy", True)
    result = run("apply", str(file), "--wait")
    assert result.exit_code == 0
    assert "Healthy" in result.stdout


def test_a_version_made_active_by_hand_is_not_waited_for(
    run: Run, control: FakeControl, file: Path
) -> None:
    """Its rollout was rolled back before: that is no failure any more."""
    _applied(run, file)
    _end(control, "RolledBack", final=True)
    control.table["fraud"] = msgspec.structs.replace(control.table["fraud"], active="v2")
    told = _applied(run, file, "--wait")
    assert (told["rollouts"], told["problems"]) == ([], [])


@pytest.mark.parametrize("phase", ["RolledBack", "Failed", "Degraded"])
def test_a_rollout_that_ends_badly_is_a_failure(
    run: Run, control: FakeControl, file: Path, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its sentence."""
    _applied(run, file)
    looked = rollout_watch.looked

    def ending(*args: Any) -> Iterator[rollout_watch.Look]:
        for number, look in enumerate(looked(*args)):
            yield look
            if number == 0:
                _end(control, phase)

    monkeypatch.setattr(rollout_watch, "looked", ending)
    told = _applied(run, file, "--wait", code=1)
    assert told["problems"] == [f"fraud: v2 ended {phase}: so it is {phase}"]
    assert told["rollouts"][0]["good"] is False


def test_a_shadow_is_judged_by_its_metrics(run: Run, control: FakeControl, file: Path) -> None:
    """It promotes nothing, so what it saw is the verdict; what only watches does not count."""
    file.write_text(SHADOW)
    _applied(run, file)
    _end(control, "Completed", metrics=(metric(), metric("latency", verdict="insufficient")))
    told = _applied(run, file, "--wait", code=1)
    assert told["problems"] == ["fraud: v2 ended Completed, and worse in error_rate"]
    _end(control, "Completed", metrics=(metric(dry_run=True),))
    assert _applied(run, file, "--wait")["rollouts"][0]["good"]


def test_waiting_has_an_end(run: Run, file: Path) -> None:
    """--timeout: what is still running then is a failure."""
    result = run("apply", str(file), "--wait", "--timeout", "0")
    assert result.exit_code == 1
    assert "fraud/v2 is still Progressing" in result.stderr
    assert "--timeout is for --wait" in run("apply", str(file), "--timeout", "5").stderr


def test_nothing_is_done_of_a_model_of_which_something_is_refused(
    run: Run, control: FakeControl, file: Path
) -> None:
    """The others are done all the same."""
    file.write_text(
        "models: {a: {versions: {v1: {uri: /a}}, stable: v9}, b: {versions: {v1: {uri: /b}}}}"
    )
    told = _applied(run, file, code=1)
    assert [call[:2] for call in control.calls] == [("register", "b")]
    assert [each["ok"] for each in told["steps"]] == [False, False, True]
    assert "not done, as something else of a is refused" in told["steps"][0]["sentence"]


def test_an_error_half_way_says_how_to_go_on(
    run: Run, control: FakeControl, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done until then; applying again continues."""

    async def full(*_: Any, **__: Any) -> Any:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(control, "switch", full)
        result = run("apply", str(file))
        assert result.exit_code == 1
        assert "the disk is full; done until then: fraud: registered v1" in result.stderr
        assert "applying again goes on from there" in result.stderr
    assert _applied(run, file)["steps"][2]["changed"]
    assert _verbs(control) == ["register", "register", "switch", "start_rollout"]


def test_what_the_server_refuses_ends_its_model_alone(
    run: Run, control: FakeControl, file: Path
) -> None:
    """A version that cannot be loaded, and the next model."""
    file.write_text(
        "models: {a: {versions: {v1: {uri: /broken}}, stable: v1}, b: {versions: {v1: {uri: /b}}}}"
    )
    told = _applied(run, file, code=1)
    (problem,) = told["problems"]
    assert "ValueError: not a model; applying again goes on from here" in problem
    assert told["steps"][-1]["model"] == "b"


def test_pruning_removes_what_has_no_weight(run: Run, control: FakeControl, file: Path) -> None:
    """Only with the flag."""
    assert run("models", "add", "fraud", "/old", "--version", "v0").exit_code == 0
    _applied(run, file)
    assert ("remove_version", "fraud", "v0") not in control.calls
    assert _applied(run, file, "--prune")["steps"][-1]["sentence"] == "removed v0"
    assert control.calls[-1] == ("remove_version", "fraud", "v0")


def test_the_gate_lets_a_good_version_through(run: Run, control: FakeControl, file: Path) -> None:
    """Each step is told; the rollout begins after them."""
    file.write_text(_gated("{max_latency_ms: 5, max_memory_mb: 100}"))
    shown = run("apply", str(file)).stdout
    lines = [" ".join(line.split()) for line in shown.splitlines() if "gate, " in line]
    assert [line.split(" ")[2] for line in lines] == ["signature", "samples", "latency", "memory"]
    assert "2 ms for one row (at most 5)" in lines[2]
    assert all(line.startswith("✓") for line in lines)
    assert shown.index("gate, memory") < shown.index("started rollout")


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("{max_latency_ms: 1.5}", "latency: 2 ms for one row (at most 1.5)"),
        ("{max_memory_mb: 4}", "memory: 8 MiB in each process (at most 4)"),
        ("{samples: true}", "samples: it brings no sample rows"),
    ],
)
def test_the_gate_keeps_others_out(
    run: Run, control: FakeControl, file: Path, gate: str, said: str
) -> None:
    """No rollout begins, and the exit code is 1; the versions are registered."""
    file.write_text(_gated(gate))
    told = _applied(run, file, code=1)
    assert "start_rollout" not in _verbs(control)
    assert said in told["problems"][0]
    assert told["gates"][0]["steps"][-1]["passed"] is False
    assert "✗ gate, " in run("apply", str(file)).stdout


def test_a_version_that_cannot_be_loaded_fails_at_the_gate(
    run: Run, control: FakeControl, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the server's sentence; a misfit is called that."""
    file.write_text(_gated("{}"))
    reasons = iter(
        ["fraud/v2: ValueError: no", "the version does not fit the model's signature: x"]
    )

    async def load(*_: Any) -> Any:
        raise LoadError(next(reasons))

    monkeypatch.setattr(control, "load", load)
    assert "samples: fraud/v2: ValueError" in _applied(run, file, code=1)["problems"][0]
    assert "signature: the version does not fit" in _applied(run, file, code=1)["problems"][0]
    monkeypatch.setattr(control, "load", _nothing)
    assert "is not ready although" in _applied(run, file, code=1)["problems"][0]


async def _nothing(*_: Any) -> Any:
    from hotswap.core.views import OperationView

    return OperationView("op-1", "load", "fraud", "v2", "done")


class Replaying:
    """The control API, with a replay of its own in front."""

    def __init__(self, control: FakeControl) -> None:
        self.app = create_app(control)
        self.status = 200
        self.answer: dict[str, Any] = {}
        self.bodies: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].endswith("/replay"):
            await self.app(scope, receive, send)
            return
        message = await receive()
        self.bodies.append((scope["path"], json.loads(message["body"])))
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(self.answer).encode()})


@pytest.fixture
def replaying(control: FakeControl) -> Replaying:
    return Replaying(control)


@pytest.fixture
def url(replaying: Replaying) -> Iterator[str]:
    with serving(replaying) as address:
        yield address


def test_recorded_traffic_is_the_gates_last_step(
    run: Run, control: FakeControl, file: Path, replaying: Replaying
) -> None:
    """What is asked for is sent, and what came of it judged."""
    file.write_text(_gated("{replay: {since: 7d, max_rows: 500, max_disagreement: 0.05}}"))
    replaying.answer = {"rows": 500, "requests": 400, "errors": 0, "agreement": 0.5}
    told = _applied(run, file, code=1)
    assert "50.00% answered otherwise" in told["problems"][0]
    path = "/api/v1/models/fraud/versions/v2/replay"
    assert replaying.bodies == [(path, {"since_seconds": 604800.0, "max_rows": 500})]
    replaying.answer["agreement"] = 0.99
    assert _applied(run, file)["gates"][0]["steps"][-1]["name"] == "replay"
    assert _verbs(control)[-1] == "start_rollout"


def test_a_replay_that_cannot_be_run_is_no_pass(
    run: Run, control: FakeControl, file: Path, replaying: Replaying
) -> None:
    """The server's sentence says why; one that is not ready ends the command."""
    file.write_text(_gated("{replay: {}}"))
    replaying.status, replaying.answer = 404, {"error": "nothing was recorded"}
    assert "replay: nothing was recorded" in _applied(run, file, code=1)["problems"][0]
    replaying.status, replaying.answer = 200, {"said": []}
    assert "does not say" in _applied(run, file, code=1)["problems"][0]
    replaying.status, replaying.answer = 503, {"error": "busy"}
    assert "busy; nothing was done until then" in _applied(run, file, code=1)["problems"][0]
    replaying.status, replaying.answer = 401, {"error": "no token"}
    assert "no token" in _applied(run, file, code=1)["problems"][0]
    assert "start_rollout" not in _verbs(control)
