"""A version that never had traffic is run over what was answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.harness import Response, Server, run_command, wait_until
from tests.e2e.rollouts import add_version, write_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ROWS = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """v1 of ``m`` answered `ROWS` requests; v2 answers half of a few otherwise, and fails on some."""
    root = tmp_path_factory.mktemp("replay")
    write_version(root / "models", "m", "v1", predict="return np.where(X[:, 0] > 0.5, 1.0, 2.0)")
    with Server(root / "models", root / "state", "--poll-seconds=0.2") as server:
        for first, second in rows():
            assert server.predict("m", (first, second)).status == 200
        fails = "int('seven') if (X[:, 1] == 7).any() else"
        add_version(server, "m", "v2", predict=f"return {fails} np.where(X[:, 0] > 0.6, 1.0, 2.0)")
        add_version(server, "m", "v3", predict="os.abort()")
        yield server


def rows() -> list[tuple[float, float]]:
    """The first decides; every twentieth has a seven."""
    rng = np.random.default_rng(7)
    return [(float(rng.uniform(0.1, 1)), 7.0 if at % 20 == 0 else 1.0) for at in range(ROWS)]


def replay(server: Server, version: str, **body: Any) -> Response:
    path = f"/api/v1/models/m/versions/{version}/replay"
    return server.control("POST", path, body, seconds=120)


def test_a_version_is_run_over_what_was_answered(server: Server) -> None:
    """Errors, agreement, and the report, without a request of its own."""
    before = server.model("m")["revision"]
    wait_until(lambda: replay(server, "v2").json.get("rows") == ROWS, "records of all rows", 60)
    answer = replay(server, "v2", since_seconds=3600, by="x0").json
    kept = [(first, second) for first, second in rows() if second != 7]
    same = sum((first > 0.5) == (first > 0.6) for first, _ in kept)
    assert (answer["rows"], answer["requests"], answer["errors"]) == (ROWS, ROWS, ROWS // 20)
    assert answer["agreement"] == pytest.approx(same / len(kept))
    assert answer["problems"][0].startswith("ValueError")
    assert (answer["quality"]["stable"], answer["quality"]["candidate"]) == ("v1", "v2")
    assert server.model("m")["revision"] == before
    assert server.version("m", "v2")["instances"] == 0
    operation = server.control("GET", "/api/v1/operations").json["operations"][0]
    assert (operation["kind"], operation["state"]) == ("replay", "done")
    assert operation["reason"].startswith(f"{ROWS} rows: {ROWS // 20} failed")


def test_what_cannot_be_run_is_told_and_harms_nobody(server: Server) -> None:
    """A model that ends its process, a version that is none, a time in which nothing was."""
    answer = replay(server, "v3")
    assert answer.status == 409
    assert "signal 6" in answer.error
    assert replay(server, "v9").status == 404
    assert replay(server, "v2", since_seconds=0.001).status == 404
    assert replay(server, "v2", by="zip").status == 400
    assert server.predict("m").status == 200
    folders = list((server.state_dir / "records" / "replays" / "m").iterdir())
    assert not [each for each in folders if each.name.startswith(".")]
    assert 1 <= len(folders) <= 5


def test_the_command_writes_the_report(server: Server, tmp_path: Path) -> None:
    """On the terminal, and as a page."""
    url = f"--url=http://127.0.0.1:{server.control_port}"
    page = tmp_path / "replay.html"
    done = run_command("replay", "m", "v2", "--limit", "50", "--out", str(page), url)
    assert done.returncode == 0, done.stderr
    assert "was run over 50 rows of 50 requests" in done.stdout
    assert "A replay: v2 was run over 50 recorded rows" in page.read_text()
    told = run_command("replay", "m", "v2", "--json", url)
    assert json.loads(told.stdout)["rows"] >= ROWS
