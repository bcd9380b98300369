"""The demo's course: order of events, its folder, its ports, and how it fails."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from rich.console import Console

from hotswap.app import demo, demo_account
from hotswap.app.demo import Pace, Play, main, publish, urls, workplace
from hotswap.app.demo_bench import DemoModel, DemoVersion
from hotswap.app.demo_server import DemoFailed, DemoServer, Move, port_near
from hotswap.app.demo_traffic import Answer, Traffic
from hotswap.core.rollout_views import JournalView, RolloutView
from hotswap.errors import MissingDependency
from tests.unit.web import samples


class FakeServer:
    """Records what it is asked to do, in order."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.active = {"diabetes": "v1", "digits": "v1"}

    async def registered(self, model: str, version: str) -> None:
        self.asked.append(("registered", model, version))

    async def move(self, model: str, kind: str, version: str | None = None) -> Move:
        source, target = self.active[model], version or "v1"
        self.active[model] = target
        self.asked.append((kind, model, target))
        return Move(model, kind, source, target, 0.0, 0.0, 1.0, 0.1)

    async def roll_out(self, body: dict[str, Any]) -> RolloutView:
        self.asked.append(("roll out", body["model"], body["version"]))
        return samples.rollout(model=body["model"], version=body["version"])

    async def journal(self, id: str) -> list[JournalView]:
        return samples.journal()


class FakeTraffic:
    """Every row has been asked for."""

    answers: ClassVar[list[Answer]] = []

    async def covered(self, model: DemoModel, version: str) -> None:
        assert model.version(version) is not None


def model(folder: Path, name: str, *versions: str) -> DemoModel:
    made = []
    for version in versions:
        target = folder / "trained" / name / version
        target.mkdir(parents=True)
        (target / "model.onnx").write_bytes(b"onnx")
        made.append(DemoVersion(version, "ONNX", "", target, np.zeros(1)))
    return DemoModel(name, "classification", np.zeros((1, 1)), np.zeros(1), tuple(made))


def played(tmp_path: Path) -> tuple[Play, FakeServer]:
    (tmp_path / "models").mkdir()
    server = FakeServer()
    console = Console(file=io.StringIO())
    play = Play(console, tmp_path, cast("DemoServer", server), demo_account.show, Pace(0, 0))
    return play, server


async def test_versions_appear_then_take_over_then_one_goes_back(tmp_path: Path) -> None:
    """Every second version is published and noticed before the first switch."""
    models = [model(tmp_path, "digits", "v1", "v2"), model(tmp_path, "diabetes", "v1", "v2")]
    play, server = played(tmp_path)
    moves = await play.switches(models, cast("Traffic", FakeTraffic()))
    assert server.asked == [
        ("registered", "digits", "v2"),
        ("registered", "diabetes", "v2"),
        ("switch", "digits", "v2"),
        ("switch", "diabetes", "v2"),
        ("rollback", "digits", "v1"),
    ]
    assert [move.kind for move in moves] == ["switch", "switch", "rollback"]
    assert {path.name for path in (tmp_path / "models" / "digits").iterdir()} == {"v2"}


async def test_one_version_after_the_other_is_rolled_out(tmp_path: Path) -> None:
    """Each is published, noticed, and followed to its end before the next appears."""
    cancer = model(tmp_path, "cancer", "v1", "v2", "v3", "v4")
    play, server = played(tmp_path)
    told = await play.rollouts(cancer, cast("Traffic", FakeTraffic()))
    assert server.asked == [
        (what, "cancer", version)
        for version in ("v2", "v3", "v4")
        for what in ("registered", "roll out")
    ]
    assert [(each.view.version, len(each.journal)) for each in told] == [
        (version, len(samples.journal())) for version in ("v2", "v3", "v4")
    ]


def test_publishing_moves_a_whole_version(tmp_path: Path) -> None:
    """The version appears under models with all its files."""
    publish(model(tmp_path, "cancer", "v1"), "v1", tmp_path)
    assert (tmp_path / "models/cancer/v1/model.onnx").read_bytes() == b"onnx"
    assert not (tmp_path / "trained/cancer/v1").exists()


def test_workplace_forgets_an_earlier_demo_and_nothing_else(tmp_path: Path) -> None:
    """What a demo made is replaced; a file of the user's own stays."""
    (tmp_path / "models/cancer").mkdir(parents=True)
    (tmp_path / "mine.txt").write_text("mine")
    with workplace(tmp_path) as place:
        assert place == tmp_path
        assert list((place / "models").iterdir()) == []
        assert (place / "mine.txt").read_text() == "mine"


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second one works in a temporary folder, which it removes."""
    with workplace(tmp_path) as first:
        (first / "models/cancer").mkdir()
        with workplace(tmp_path) as second:
            assert second != first
            assert (second / "models").is_dir()
        assert not second.exists()
        assert (first / "models/cancer").exists()


def test_a_port_in_use_is_replaced() -> None:
    """The wanted port if it is free, else another one."""
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken: int = busy.getsockname()[1]
        assert port_near("127.0.0.1", taken) != taken
    assert port_near("127.0.0.1", taken) == taken
    assert port_near("127.0.0.1", taken, taken=taken) != taken


def test_an_address_that_is_not_here_is_one_clear_line() -> None:
    """No port of a foreign address can be bound."""
    with pytest.raises(DemoFailed, match=r"no port can be bound on 192\.0\.2\.1"):
        port_near("192.0.2.1", 8080)


def test_missing_extras_end_the_demo_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Exit code 1 and one line with the pip command."""

    def missing() -> None:
        raise MissingDependency(
            "the demo needs xgboost: install it with: pip install 'hotswap[xgboost]'"
        )

    monkeypatch.setattr(demo, "require_libraries", missing)
    console = Console(file=io.StringIO(), width=200)
    assert main(exit=True, folder=tmp_path / "demo", console=console) == 1
    assert "pip install 'hotswap[xgboost]'" in console.file.getvalue()  # type: ignore[attr-defined]
    assert not (tmp_path / "demo").exists()


def test_urls_are_real_addresses(tmp_path: Path) -> None:
    """What is printed at the end can be pasted: the ports are those in use."""
    server = DemoServer(tmp_path, "127.0.0.1", 0, 0)
    console = Console(file=io.StringIO(), width=300)
    urls(console, server)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in (server.url, f"{server.control_url}/docs", f"{server.control_url}/metrics"):
        assert part in text
    assert f"hotswap rollout verify cancer --url {server.control_url}" in text


def test_a_demo_that_fails_says_so_as_json_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json standard output is one object, however it went."""

    def missing() -> None:
        raise MissingDependency("the demo needs xgboost")

    monkeypatch.setattr(demo, "require_libraries", missing)
    console = Console(file=io.StringIO(), width=200)
    assert main(exit=True, as_json=True, folder=tmp_path / "demo", console=console) == 1
    assert json.loads(capsys.readouterr().out) == {"ok": False, "error": "the demo needs xgboost"}
