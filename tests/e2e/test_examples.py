"""The programs in examples/ run as they are documented."""

from __future__ import annotations

import ast
import os
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def _environment(**values: str) -> dict[str, str]:
    """This process's, with the commands of its virtual environment first on PATH."""
    return os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"} | values


def _two_free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.mark.e2e
def test_train_and_serve() -> None:
    """Two versions are trained and served; the answers' versions follow a switch and a rollback."""
    port, control = _two_free_ports()
    done = subprocess.run(
        [ROOT / "examples" / "train_and_serve.sh"],
        env=_environment(PORT=str(port), CONTROL_PORT=str(control)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r'"version":"(v\d)"', done.stdout) == ["v2", "v1", "v2"]


@pytest.mark.e2e
def test_embedded() -> None:
    """The engine answers all the time by v1 or v2, and at last by the version switched to."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "embedded.py"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "classes: [0, 0, 0] by v2"
    answered = ast.literal_eval(second.partition(": ")[2])
    assert set(answered) == {"v1", "v2"}


@pytest.mark.e2e
async def test_mount_fastapi(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application with the engine mounted answers by its own route and by hotswap's."""
    monkeypatch.setenv("MODELS", str(models))
    example = runpy.run_path(str(ROOT / "examples" / "mount_fastapi.py"))
    app, rows = example["app"], example["rows"]
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        own = await client.get("/score/3")
        mounted = await client.post("/models/predict", json={"features": rows[3].tolist()})
    assert own.json() == {"row": 3, "class": 0, "version": "v2"}
    assert mounted.status_code == 200, mounted.text
    assert mounted.json()["prediction"] == 0
    assert mounted.headers["x-hotswap-version"] == "v2"
