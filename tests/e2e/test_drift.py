"""Drift on a running server: recorded traffic changes, and who should know it does."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.harness import Server, wait_until
from tests.e2e.rollouts import Rollout, add_version, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

FLAGS = ("--drift-seconds=1", "--drift-reference-rows=500")


class Asking:
    """Asks model ``m`` for rows around ``mean``, until the block ends."""

    def __init__(self, server: Server, mean: float = 0.0) -> None:
        self.server = server
        self.mean = mean
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _run(self) -> None:
        rng = np.random.default_rng(0)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.data_port, timeout=30)
        while not self._ended.is_set():
            row = [float(rng.normal(self.mean)), float(rng.normal())]
            body = json.dumps({"features": row, "model": "m"})
            connection.request("POST", "/predict", body, {"content-type": "application/json"})
            assert connection.getresponse().read()
            self._ended.wait(0.002)
        connection.close()


def drift(server: Server) -> dict[str, Any]:
    answer = server.control("GET", "/api/v1/models/m/drift")
    assert answer.status == 200, answer
    view: dict[str, Any] = answer.json
    return view


def watched(server: Server) -> bool:
    return [each["state"] for each in drift(server)["references"]] == ["watching", "watching"]


def alarmed(server: Server) -> dict[str, float]:
    columns = drift(server)["columns"]
    return {each["column"]: each["alarmed_since"] for each in columns if each["alarmed_since"]}


def events(server: Server) -> list[dict[str, Any]]:
    """All events of drift that are kept."""
    connection = http.client.HTTPConnection("127.0.0.1", server.control_port, timeout=2)
    connection.request("GET", "/api/v1/events?after=1")
    answer = connection.getresponse()
    found: list[dict[str, Any]] = []
    try:
        while line := answer.readline():
            if line.startswith(b"data: "):
                found.append(json.loads(line[6:]))
    except TimeoutError:
        pass
    finally:
        connection.close()
    return [each for each in found if each["kind"] == "drift"]


def test_shifted_traffic_is_told_and_holds_a_rollout(tmp_path: Path) -> None:
    """By the event, the alert, the gauge and the log; over a kill of everything; until reset."""
    write_version(tmp_path / "models", "m", "v1", predict="return (X[:, 1] > 0).astype(float)")
    server = Server(tmp_path / "models", tmp_path / "state", *FLAGS)
    with server:
        with Asking(server) as asking:
            wait_until(lambda: watched(server), "both references")
            wait_until(lambda: all(c["n"] > 500 for c in drift(server)["columns"]), "rows")
            assert alarmed(server) == {}
            asking.mean = 1.5
            wait_until(lambda: alarmed(server), "an alarm")
        (name,) = since = alarmed(server)
        assert name in ("input_x0", "input_0")
        (event,) = events(server)
        assert event["data"]["columns"] == [name]
        assert "in the reference" in event["message"]
        (alert,) = server.control("GET", "/api/v1/model-switching/alerts").json["alerts"]
        assert (alert["reason"], alert["model"]) == ("drift", "m")
        metrics = server.control("GET", "/metrics").body.decode()
        assert f'hotswap_drift_alarmed{{column="{name}",model="m"}} 1.0' in metrics
        assert [each["columns"] for each in server.log_lines() if each.get("event") == "drift"] == [
            [name]
        ]
        server.kill()

    again = Server(tmp_path / "models", tmp_path / "state", *FLAGS)
    with again:
        wait_until(again.control_answers, "control")
        wait_until(lambda: alarmed(again) == since, "what was known before the kill")
        assert events(again) == []
        add_version(again, "m", "v2", predict="return (X[:, 1] > 0).astype(float)")
        guardrails = [
            {"metric": "error_rate", "max_increase": 0.5},
            {"metric": "input_drift", "max": 0.1},
        ]
        with Asking(again, 1.5) as asking:
            rollout = Rollout.start(
                again, "m", "v2", "canary", {"evaluation_period_seconds": 1},
                guardrails=guardrails, bake_seconds=0, watch_seconds=0,
            )  # fmt: skip

            def held() -> bool:
                view = rollout.view()
                said = [m["sentence"] for m in view["metrics"] if m["name"] == "input_drift"]
                return view["phase"] == "Paused" and "has changed" in "".join(said)

            wait_until(held, "the rollout to be held by drift")
            assert again.control("POST", "/api/v1/models/m/drift/reset").status == 200
            assert alarmed(again) == {}
            wait_until(lambda: watched(again), "new references", 90)
            rollout.end("Healthy", "promoted", seconds=90)
        assert alarmed(again) == {}
