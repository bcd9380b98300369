"""`make demo-mlflow`, to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import environment

pytestmark = [pytest.mark.e2e, pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]


def test_the_demo_ends_well(tmp_path: Path) -> None:
    """It starts MLflow, moves aliases, lets a challenger be decided; no request fails."""
    ran = subprocess.run(
        [sys.executable, "-m", "hotswap.app.demo_mlflow", "--exit", "--folder", str(tmp_path / "d")],
        env=environment(), capture_output=True, text=True, timeout=380, check=False,
    )  # fmt: skip
    said = ran.stdout
    assert ran.returncode == 0, said + ran.stderr
    assert " 0 failed" in said
    assert "hotswap.verdict = promoted" in said
    assert said.count("its first answer after") == 8
