"""Following MLflow's registry: real servers on both sides, under load, killed and restarted."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load
from tests.e2e.rollouts import write_version
from tests.mlflow_server import MlflowServer

pytestmark = [pytest.mark.e2e, pytest.mark.integration, pytest.mark.timeout(400)]

#: A candidate that fails no more often is promoted after a few requests; nothing bakes.
QUICK: dict[str, Any] = {
    "config": {"min_pairs": 20},
    "guardrails": [{"metric": "error_rate"}],
    "bake_seconds": 0,
    "watch_seconds": 0,
}


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.kill()


class Place:
    """A registered model of its own, and a server that follows it."""

    def __init__(self, mlflow: MlflowServer, serve: Serve, root: Path, name: str) -> None:
        self.mlflow, self.name, self._serve, self._root = mlflow, name, serve, root
        self.server: Server
        mlflow.create_model(name)

    def publish(self, **trick: Any) -> str:
        """A version that answers with its number."""
        made = self._root / "made"
        known = len(list((made / self.name).iterdir())) if (made / self.name).exists() else 0
        version = str(known + 1)
        write_version(made, self.name, version, **trick)
        assert self.mlflow.publish(self.name, made / self.name / version) == version
        return version

    def serve(
        self, rollout: dict[str, Any] | None = None, *flags: str, ready: bool = True
    ) -> Server:
        file = self._root / "rollout.json"
        file.write_text(json.dumps(rollout or {"guardrails": [{"metric": "error_rate"}]}))
        self.server = self._serve(
            "--registry=mlflow", f"--tracking-uri={self.mlflow.url}",
            f"--registry-models={self.name}", f"--registry-rollout={file}",
            *(() if any("poll" in flag for flag in flags) else ("--registry-poll-seconds=0.3",)),
            *flags, ready=ready,
        )  # fmt: skip
        return self.server

    def champion(self, version: str) -> None:
        self.mlflow.alias(self.name, "champion", version)

    def challenger(self, version: str) -> None:
        self.mlflow.alias(self.name, "challenger", version)

    def status(self) -> dict[str, Any]:
        """The registry as control shows it."""
        answer = self.server.control("GET", "/api/v1/registry")
        assert answer.status == 200, answer
        view: dict[str, Any] = answer.json
        return view

    def followed(self) -> dict[str, Any]:
        """This model in it; nothing if it is not there yet."""
        models = self.status()["models"]
        return dict(models[0]) if models else {}

    def until(self, what: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The model in the registry's status once ``condition`` holds for it."""

        def there() -> dict[str, Any] | None:
            view = self.followed()
            return view if view and condition(view) else None

        return wait_until(there, what)

    def until_active(self, version: str) -> None:
        wait_until(lambda: self.server.model(self.name)["active"] == version, f"{version} to serve")

    def rollouts(self) -> list[dict[str, Any]]:
        """Newest first; once control has read them, should it have been restarted."""

        def shown() -> list[list[dict[str, Any]]] | None:
            answer = self.server.control("GET", f"/api/v1/rollouts?model={self.name}")
            return [answer.json["rollouts"]] if answer.status == 200 else None

        return wait_until(shown, "the rollouts to be shown")[0]

    def until_rollout(self, version: str, *phases: str) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            views = self.rollouts()
            found = views and views[0]["version"] == version and views[0]["phase"] in phases
            return views[0] if found else None

        return wait_until(there, f"a rollout of {version} that is {' or '.join(phases)}")

    def until_told(self, version: str, verdict: str) -> dict[str, str]:
        def there() -> dict[str, str] | None:
            tags = self.mlflow.tags(self.name, version)
            return tags if tags.get("hotswap.verdict") == verdict else None

        return wait_until(there, f"version {version} to be tagged {verdict!r}")


@pytest.fixture
def place(
    mlflow: MlflowServer, serve: Serve, tmp_path: Path, request: pytest.FixtureRequest
) -> Place:
    return Place(mlflow, serve, tmp_path, request.node.name.removeprefix("test_")[:60])


def test_a_moved_alias_serves_without_a_restart(place: Place) -> None:
    """Back and forth under load: no request fails, none is answered by what was left."""
    place.publish()
    place.publish()
    place.champion("1")
    server = place.serve()
    assert server.model(place.name)["active"] == "1"
    with Load(server.data_port, place.name, 8) as load:
        for version in ("2", "1", "2"):
            place.champion(version)
            place.until_active(version)
            load.wait(100)
    load.expect_no_failure()
    assert {sent.version for sent in load.sent} == {"1", "2"}
    view = server.version(place.name, "2")
    assert view["uri"] == f"models:/{place.name}/2"
    assert view["metadata"]["mlflow"]["version"] == "2"


def test_a_challenger_is_tried_replaced_and_withdrawn(place: Place) -> None:
    """Its alias starts a rollout, moved it starts another, removed it ends; nobody notices."""
    for _ in range(3):
        place.publish()
    place.champion("1")
    place.challenger("2")
    endless = {"config": {"min_pairs": 10**6}, "guardrails": [{"metric": "error_rate"}]}
    server = place.serve(endless, "--registry-percentage=30")
    with Load(server.data_port, place.name, 8) as load:
        first = place.until_rollout("2", "Progressing")
        assert first["strategy"] == "champion_challenger"
        assert first["spec"]["config"]["challenger_percentage"] == 30
        load.wait(300)
        place.challenger("3")
        second = place.until_rollout("3", "Progressing")
        assert place.until("3 to be remembered", lambda f: f["rollout"] == second["id"])
        load.wait(300)
        place.mlflow.drop_alias(place.name, "challenger")
        place.until_rollout("3", "RolledBack")
        load.wait(100)
    load.expect_no_failure()
    assert {sent.version for sent in load.sent} == {"1", "2", "3"}
    assert [view["phase"] for view in place.rollouts()] == ["RolledBack", "RolledBack"]
    place.challenger("1")
    view = place.until("both aliases to be seen", lambda f: f["candidate"] == "1" and f["notes"])
    assert "nothing to try" in view["notes"][0]
    assert len(place.rollouts()) == 2


def test_a_promotion_is_told_to_the_registry(place: Place) -> None:
    """With leave to write: the alias follows what was decided, and tags say why."""
    place.publish()
    place.publish()
    place.champion("1")
    place.challenger("2")
    server = place.serve(QUICK, "--registry-write")
    with Load(server.data_port, place.name, 8) as load:
        tags = place.until_told("2", "promoted")
        load.wait(100)
    load.expect_no_failure()
    assert server.model(place.name)["active"] == "2"
    assert place.mlflow.aliases(place.name)["champion"] == "2"
    rollout = place.rollouts()[0]
    assert tags["hotswap.rollout"] == rollout["id"]
    control = f"http://127.0.0.1:{server.control_port}"
    assert tags["hotswap.report"] == f"{control}/api/v1/rollouts/{rollout['id']}"
    view = place.until("it to be settled", lambda f: f["stable"] == "2")
    assert (view["stable_done"], view["candidate_done"], view["problems"]) == ("2", "2", [])
    assert len(place.rollouts()) == 1
    place.champion("1")  # a person's word comes after it
    place.until_active("1")


def test_a_bad_challenger_is_told_and_not_tried_again(place: Place) -> None:
    """Rolled back it stays so, over a restart too, until its alias moves."""
    place.publish()
    place.publish(predict="raise ValueError('bad')")
    place.publish()
    place.champion("1")
    place.challenger("2")
    server = place.serve(QUICK, "--registry-write")
    with Load(server.data_port, place.name, 8) as load:
        rolled = place.until_rollout("2", "RolledBack")
        place.until_told("2", f"rolled back: {rolled['reason']}")
        before = place.status()["read_at"]
        wait_until(lambda: place.status()["read_at"] > before, "another look")
        load.wait(50)
    load.expect_no_failure()
    assert len(place.rollouts()) == 1
    assert place.mlflow.aliases(place.name) == {"champion": "1", "challenger": "2"}
    server.stop()
    server.start()
    place.until("it to be looked at", lambda f: f["candidate"] == "2")
    assert len(place.rollouts()) == 1
    place.mlflow.drop_alias(place.name, "challenger")
    place.until("that to be seen", lambda f: f["candidate_done"] is None)
    place.challenger("2")
    wait_until(lambda: len(place.rollouts()) == 2, "it to be tried once more")


def test_what_an_operator_does_by_hand_is_respected(place: Place) -> None:
    """A switch by hand stays, over a restart, until the alias moves; so does a rollout by hand."""
    for _ in range(3):
        place.publish()
    place.champion("1")
    server = place.serve()
    with Load(server.data_port, place.name, 4) as load:
        place.challenger("2")
        own = place.until_rollout("2", "Progressing")
        place.mlflow.drop_alias(place.name, "challenger")
        place.until_rollout("2", "RolledBack")
        assert server.switch(place.name, "2").status == 200
        before = place.status()["read_at"]
        wait_until(lambda: place.status()["read_at"] > before, "another look")
        assert server.model(place.name)["active"] == "2"
        server.switch(place.name, "1")
        body = {"model": place.name, "version": "2", "strategy": "shadow",
                "config": {"min_requests": 10**6}}  # fmt: skip
        mine = server.control("POST", "/api/v1/rollouts", body)
        assert mine.status == 201, mine
        place.champion("3")
        view = place.until("it to wait", lambda f: f["stable"] == "3" and f["notes"])
        assert mine.json["id"] in view["notes"][0]
        assert own["id"] != mine.json["id"]
        server.control("POST", f"/api/v1/rollouts/{mine.json['id']}/abort", {})
        place.until_active("3")
    load.expect_no_failure()
    server.switch(place.name, "1")
    server.stop()
    server.start()
    place.until("it to be looked at", lambda f: f["stable"] == "3")
    assert server.model(place.name)["active"] == "1"


def test_versions_that_vanish_or_change_change_nothing_here(place: Place) -> None:
    """A deleted version serves on; other content under a known number is refused in a sentence."""
    place.publish()
    place.publish()
    place.publish()
    place.champion("1")
    server = place.serve()
    place.champion("2")
    place.until_active("2")
    source = place.mlflow.place(place.mlflow.source(place.name, "1"))
    place.mlflow.put(source, "more.txt", b"other content")
    place.champion("1")
    view = place.until("the refusal", lambda f: f["problems"])
    assert "other content" in view["problems"][0]
    assert server.model(place.name)["active"] == "2"
    assert server.predict(place.name).json["prediction"] == 2.0
    place.champion("2")
    place.until("the problem to be over", lambda f: not f["problems"])
    place.mlflow.delete_version(place.name, "2")
    view = place.until("the deletion to be seen", lambda f: f["notes"])
    assert "version 2 was deleted" in view["notes"][0]
    assert server.predict(place.name).json["prediction"] == 2.0
    place.champion("3")
    place.until_active("3")


def kill_control(server: Server) -> None:
    """At once; its successor answers when this returns."""
    killed = set(server.control_pids())
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: set(server.control_pids()) - killed, "another control")
    server.wait_control()


def test_a_killed_control_does_nothing_twice(place: Place) -> None:
    """Killed in the middle of what an alias asks for, it goes on; requests do not notice."""
    for _ in range(4):
        place.publish()
    place.champion("1")
    endless = {"config": {"min_pairs": 10**6}, "guardrails": [{"metric": "error_rate"}]}
    server = place.serve(endless)
    with Load(server.data_port, place.name, 4) as load:
        for number, version in enumerate(("2", "3"), start=1):
            place.challenger(version)
            wait_until(lambda number=number: len(place.rollouts()) == number, "a rollout")  # type: ignore[misc]
            kill_control(server)
            view = place.until_rollout(version, "Progressing")
            place.until("it to be remembered", lambda f, id=view["id"]: f["rollout"] == id)  # type: ignore[misc]
        place.champion("4")
        kill_control(server)
        place.until_active("4")
        load.wait(50)
    load.expect_no_failure()
    # The champion moved: what ran gave way, and the challenger's alias did not move since.
    assert [view["version"] for view in place.rollouts()] == ["3", "2"]
    assert {view["phase"] for view in place.rollouts()} == {"RolledBack"}


def test_a_webhook_is_heeded_before_the_next_poll(place: Place) -> None:
    """MLflow's own, signed by it: although the server has a token, and polls once in an hour."""
    place.publish()
    place.publish()
    place.champion("1")
    secret, token = "a-secret-of-webhooks", {"authorization": "Bearer a-token"}
    server = place.serve(
        None, "--registry-poll-seconds=3600", f"--registry-webhook-secret={secret}",
        "--token=a-token", ready=False,
    )  # fmt: skip

    def active() -> str | None:
        try:
            answer = server.control("GET", f"/api/v1/models/{place.name}", headers=token)
        except OSError:
            return None
        return str(answer.json["active"]) if answer.status == 200 else None

    wait_until(lambda: active() == "1", "the first look")
    address = f"http://127.0.0.1:{server.control_port}/api/v1/registry/webhook"
    place.mlflow.webhook(place.name, address, secret)
    place.champion("2")
    wait_until(lambda: active() == "2", "the webhook to be heeded")
    refused = server.control("POST", "/api/v1/registry/webhook", {"entity": "x"})
    assert refused.status == 401


def test_an_outage_of_the_registry_changes_nothing(
    serve: Serve, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Killed, away at a start, and back: what was seen last serves; then a moved alias is followed."""
    mlflow = MlflowServer(tmp_path / "mlflow")
    mlflow.start()
    request.addfinalizer(mlflow.kill)
    place = Place(mlflow, serve, tmp_path, "away")
    place.publish()
    place.publish()
    place.champion("1")
    server = place.serve()
    with Load(server.data_port, place.name, 4) as load:
        mlflow.kill()
        wait_until(lambda: place.status()["down_since"], "the outage to be seen")
        assert "cannot be asked" in place.status()["error"]
        load.wait(200)
        mlflow.start()
        wait_until(lambda: place.status()["down_since"] is None, "the registry to be back")
        place.champion("2")
        place.until_active("2")
        load.wait(50)
    load.expect_no_failure()
    said = [e for e in server.log_lines() if "cannot be asked" in e.get("event", "")]
    assert len(said) == 1
    mlflow.kill()
    server.stop()
    server.start()
    assert server.predict(place.name).json["prediction"] == 2.0
    assert wait_until(lambda: place.status()["down_since"], "the outage to be seen")
    mlflow.start()
    place.champion("1")
    place.until_active("1")
