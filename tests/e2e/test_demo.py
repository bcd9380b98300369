"""`hotswap demo --exit`: the whole story, on real models, processes and traffic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import environment


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(660)
def test_the_story_holds(tmp_path: Path) -> None:
    """The better version is promoted by proof, both mistakes are rolled back, nobody's request fails."""
    pytest.importorskip("xgboost")
    pytest.importorskip("lightgbm")
    pytest.importorskip("skl2onnx")
    done = subprocess.run(
        [sys.executable, "-m", "hotswap", "demo", "--exit", "--json"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=640,
        check=False,
    )
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-6000:])
    account = json.loads(done.stdout)
    assert (account["ok"], account["failures"], account["stale"], account["mixed"]) == (
        True, 0, 0, 0,
    )  # fmt: skip
    better, unscaled, raising = account["rollouts"]
    assert [each["phase"] for each in account["rollouts"]] == [
        "Healthy",
        "RolledBack",
        "RolledBack",
    ]
    assert all(each["decisions_verified"] > 0 for each in account["rollouts"])
    assert better["answers"]["v2"] > 0
    assert better["decided_pairs"] >= 500
    assert "disagreement" in unscaled["why"]
    assert "v3" not in unscaled["answers"]
    assert raising["replaced"] > 0
    reports = {path.name for path in (tmp_path / "demo-models" / "reports").iterdir()}
    assert reports == {"cancer-v2.html", "cancer-v3.html", "cancer-v4.html"}
