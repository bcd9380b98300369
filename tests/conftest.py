"""What every test may use, and how a continuous-integration run treats skips."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.models import write_breast_cancer

CI = os.environ.get("HOTSWAP_CI") == "1"


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A skip in continuous integration hides a missing service or library: make it a failure."""
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (HOTSWAP_CI=1: nothing may be skipped)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a test's skip into a failure where nothing may be skipped; a GPU may be absent."""
    report = yield
    if item.get_closest_marker("gpu") is None:
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole module that skips itself."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.fixture
def free_port() -> int:
    """A loopback TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder to read, not to write: ``tumours`` with v1 (skops) and v2 (ONNX)."""
    folder = tmp_path_factory.mktemp("models")
    write_breast_cancer(folder / "tumours" / "v1", "skops", seed=1)
    write_breast_cancer(folder / "tumours" / "v2", "onnx", seed=2)
    return folder


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """An empty directory with a path short enough for Unix sockets (108 bytes at most)."""
    path = Path(tempfile.mkdtemp(prefix="hs-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
