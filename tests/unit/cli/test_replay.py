"""``hotswap replay``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hotswap.cli.apply_gate import steps
from hotswap.cli.client import Client
from hotswap.core.blueprint import Gate
from hotswap.core.blueprint import Replay as Wanted
from hotswap.core.replay_views import Replay
from hotswap.testing.fake_control import FakeControl
from tests.unit.cli.conftest import Run
from tests.unit.web import quality_samples as samples


@pytest.fixture(autouse=True)
async def _model(control: FakeControl) -> None:
    await control.register("fraud", "/m/v2", version="v2")
    control.replays["fraud"] = Replay(
        "fraud", "v2", 4200, 4000, 3, 0.95, 0.0125, 2.5, samples.binary(), 70,
        ("ValueError: no (3 rows)",),
    )  # fmt: skip
    control.calls.clear()


def test_what_came_of_it_then_the_report(run: Run, control: FakeControl) -> None:
    """Counts, why rows failed, and all that a report says."""
    result = run("replay", "fraud", "v2", "--since", "7d", "--limit", "5000", "--by", "country")
    assert result.exit_code == 0, result.output
    for said in (
        "fraud/v2 was run over 4,200 rows of 4,000 requests in 2.5 s, 0.0125 ms a row",
        "3 rows failed",
        "ValueError: no (3 rows)",
        "95.00% answered alike",
        "70 rows have not all inputs",
        "fraud: v1 → v2",
    ):
        assert said in result.stdout, said
    (call,) = control.calls
    assert call == ("replay", "fraud", "v2", 7 * 86400.0, 5000, "country")


def test_what_the_server_takes_when_nothing_is_said(run: Run, control: FakeControl) -> None:
    """All that is recorded, a hundred thousand rows of it."""
    result = run("replay", "fraud", "v2", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert (answer["rows"], answer["errors"], answer["agreement"]) == (4200, 3, 0.95)
    assert answer["quality"]["candidate"] == "v2"
    assert control.calls == [("replay", "fraud", "v2", None, 100_000, None)]


@pytest.mark.parametrize(
    ("name", "begins"), [("a.html", "<!doctype html>"), ("a.md", "# "), ("a.json", "{")]
)
def test_it_is_written_to_a_file(run: Run, tmp_path: Path, name: str, begins: str) -> None:
    """By the file's name; JSON holds the whole answer."""
    result = run("replay", "fraud", "v2", "--out", str(tmp_path / name))
    assert result.exit_code == 0, result.output
    written = (tmp_path / name).read_text()
    assert written.lower().startswith(begins)
    if name == "a.json":
        assert json.loads(written)["requests"] == 4000


def test_a_file_of_another_kind_is_refused_before_anything_is_run(
    run: Run, control: FakeControl
) -> None:
    """And a time that is none."""
    assert run("replay", "fraud", "v2", "--out", "a.pdf").exit_code == 1
    assert run("replay", "fraud", "v2", "--since", "soon").exit_code == 1
    assert run("replay", "fraud", "v2", "--limit", "0").exit_code == 2
    assert control.calls == []


def test_refusals_are_told(run: Run, control: FakeControl) -> None:
    """With the server's sentence."""
    del control.replays["fraud"]
    result = run("replay", "fraud", "v2")
    assert result.exit_code == 1
    assert "nothing is recorded here" in result.stderr
    assert "has no version 'v9'" in run("replay", "fraud", "v9").stderr


def test_a_gate_reads_the_same_answer(url: str, control: FakeControl) -> None:
    """`hotswap apply` asks this route, and judges by its keys."""
    gate = Gate(replay=Wanted(since_seconds=60.0, max_errors=3, max_disagreement=0.1))
    with Client(url) as client:
        found = list(steps(client, "fraud", "v2", gate))[-1]
    assert (found.name, found.passed) == ("replay", True)
    assert found.sentence.startswith("4,200 recorded rows: 3 failed, 5.00% answered otherwise")
    assert control.calls[-1] == ("replay", "fraud", "v2", 60.0, 100_000, None)


async def test_the_route_takes_what_makes_sense(url: str) -> None:
    """And refuses all else with a sentence."""
    import httpx2

    path = f"{url}/api/v1/models/fraud/versions/v2/replay"
    async with httpx2.AsyncClient(trust_env=False) as client:
        assert (await client.post(path)).status_code == 200
        bad = (
            {"max_rows": 0},
            {"since_seconds": -1},
            {"rows": 3},
            {"by": ""},
            {"since_seconds": "7d"},
        )
        for body in bad:
            answer = await client.post(path, json=body)
            assert answer.status_code == 400, body
            assert next(iter(body)) in answer.json()["error"]
