"""The programs in examples/ run as they are documented."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

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
