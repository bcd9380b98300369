"""The report of a running server: what it answered, and what turned out to be true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hotswap.cli.root import app
from tests.e2e.harness import Server, wait_until
from tests.e2e.labels import Labelled, wrong_below
from tests.e2e.rollouts import Rollout, add_version, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def test_the_report_tells_versions_apart_by_labels(tmp_path: Path) -> None:
    """As JSON, as a page and on the terminal, while the challenger still runs."""
    write_version(tmp_path / "models", "m", "v1", predict=wrong_below(0.4))
    with Server(tmp_path / "models", tmp_path / "state") as server:
        add_version(server, "m", "v2", predict=wrong_below(0.0))
        assert server.control("GET", "/api/v1/models/nope/report").status == 404
        Rollout.start(server, "m", "v2", "champion_challenger", {"min_pairs": 100_000}, force=True)

        def better() -> dict[str, Any] | None:
            answer = server.control("GET", "/api/v1/models/m/report?since_seconds=3600", seconds=60)
            found = answer.json if answer.status == 200 else {"differences": []}
            shown = [d["better"] for d in found["differences"] if d["metric"] == "accuracy"]
            return found if shown == [True] else None

        with Labelled(server, "m") as traffic:
            wait_until(lambda: better() is not None, "a difference", 90)
        assert traffic.failed == 0
        found = better()
        assert found is not None
        assert (found["stable"], found["candidate"], found["paired"]) == ("v1", "v2", True)
        stable, candidate = found["sides"]
        assert candidate["metrics"]["accuracy"] == 1.0
        assert 0.4 < stable["metrics"]["accuracy"] < 0.8
        page = server.control("GET", "/api/v1/models/m/report?format=html", seconds=60)
        assert page.status == 200
        assert page.body.startswith(b"<!doctype html>")
        url = f"http://127.0.0.1:{server.control_port}"
        told = CliRunner().invoke(app, ["report", "m", "--since", "1h", "--url", url])
        assert told.exit_code == 0, told.stderr
        assert "m: v1 → v2" in told.stdout
