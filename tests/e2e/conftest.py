"""Servers for end-to-end tests, each stopped with nothing left behind."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Server

Serve = Callable[..., Server]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty models folder."""
    models = tmp_path / "models"
    models.mkdir()
    return models


@pytest.fixture
def serve(folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Starts a server on ``folder``; ended with the test, however it went."""
    made: list[Server] = []

    def start(*flags: str, ready: bool = True, **more: object) -> Server:
        server = Server(folder, tmp_path / "state", *flags, **more)  # type: ignore[arg-type]
        made.append(server)
        return server.start(ready=ready)

    yield start
    failed = getattr(request.node, "failed_call", False)
    for server in made:
        if server.process is not None:
            if failed:
                server.kill()
            else:
                server.stop()
    for server in made:
        print(server.log()[-20_000:])  # noqa: T201 - pytest shows it for a failed test alone


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell the fixtures whether the test failed: then its server is not asked for manners."""
    report = yield
    if report.when == "call":
        item.failed_call = report.failed  # type: ignore[attr-defined]
    return report
