"""The demo's course: order of events, its folder, its ports, and how it fails."""

from __future__ import annotations

import io
import socket
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from rich.console import Console

from hotswap.app import demo, demo_account
from hotswap.app.demo import Pace, Play, main, publish, urls, workplace
from hotswap.app.demo_account import Move
from hotswap.app.demo_models import DemoModel, DemoVersion
from hotswap.app.demo_server import DemoFailed, DemoServer, port_near
from hotswap.app.demo_traffic import Traffic
from hotswap.errors import MissingDependency


class FakeServer:
    """Records what it is asked to do, in order."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.active = {"cancer": "v1", "digits": "v1"}

    async def registered(self, model: str, version: str) -> None:
        self.asked.append(("registered", model, version))

    async def move(self, model: str, kind: str, version: str | None = None) -> Move:
        source, target = self.active[model], version or "v1"
        self.active[model] = target
        self.asked.append((kind, model, target))
        return Move(model, kind, source, target, 0.0, 0.0, 1.0, 0.1)


class FakeTraffic:
    """Every row has been asked for."""

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


async def test_versions_appear_then_take_over_then_go_back(tmp_path: Path) -> None:
    """Every new version is published and noticed before the first switch; then v2, back, the rest."""
    models = [model(tmp_path, "cancer", "v1", "v2", "v3"), model(tmp_path, "digits", "v1", "v2")]
    (tmp_path / "models").mkdir()
    server = FakeServer()
    play = Play(
        Console(file=io.StringIO()),
        tmp_path,
        cast("DemoServer", server),
        demo_account.show,
        Pace(0, 0),
    )
    moves = await play.scenario(models, cast("Traffic", FakeTraffic()))
    assert server.asked == [
        ("registered", "cancer", "v2"),
        ("registered", "cancer", "v3"),
        ("registered", "digits", "v2"),
        ("switch", "cancer", "v2"),
        ("rollback", "cancer", "v1"),
        ("switch", "cancer", "v3"),
        ("switch", "digits", "v2"),
    ]
    assert [move.kind for move in moves] == ["switch", "rollback", "switch", "switch"]
    assert {path.name for path in (tmp_path / "models" / "cancer").iterdir()} == {"v2", "v3"}


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
    assert f"hotswap switch cancer v2 --url {server.control_url}" in text
