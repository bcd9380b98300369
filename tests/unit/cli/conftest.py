"""A real server over a fake control service, and the command line pointed at it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from typer.testing import CliRunner, Result

from hotswap.cli.root import app
from hotswap.server.admin import create_app
from hotswap.testing.fake_control import FakeControl

Run = Callable[..., Result]


@contextlib.contextmanager
def serving(application: Any) -> Iterator[str]:
    """The URL of ``application`` on a free loopback port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(application, log_level="critical", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@dataclass
class DataPlane:
    """Answers ``POST /predict`` with what it is told to, and keeps what it was sent."""

    answer: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    refuse_names: bool = False

    async def predict(self, request: Request) -> JSONResponse:
        self.bodies.append(await request.json())
        self.tokens.append(request.headers.get("authorization"))
        if self.refuse_names and isinstance(self.bodies[-1]["features"][0], dict):
            return JSONResponse({"error": "Missing: 'x'."}, 400)
        return JSONResponse(self.answer, self.status)


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def url(control: FakeControl) -> Iterator[str]:
    with serving(create_app(control)) as address:
        yield address


@pytest.fixture
def data(control: FakeControl) -> Iterator[DataPlane]:
    plane = DataPlane()
    routes = [Route("/predict", plane.predict, methods=["POST"])]
    with serving(Starlette(routes=routes)) as address:
        control.details["data"] = address
        yield plane


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests says nothing."""
    for name in list(os.environ):
        if name.startswith("HOTSWAP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "240")


@pytest.fixture
def bare() -> Run:
    """Run a command line as it stands."""

    def run(*args: str, **more: Any) -> Result:
        return CliRunner().invoke(app, [*args], **more)

    return run


@pytest.fixture
def run(bare: Run, url: str) -> Run:
    """Run a command line against the server."""

    def against(*args: str, **more: Any) -> Result:
        return bare(*args, env={"HOTSWAP_URL": url}, **more)

    return against
