"""The demo's server: a real `hotswap serve` in a process of its own, driven through its API."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import yaml

from hotswap.app.platform import die_with_parent
from hotswap.core.rollout_views import JournalView, RolloutView
from hotswap.errors import HotswapError
from hotswap.web.reading import read_journal, read_rollout

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 35.0


class DemoFailed(HotswapError):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True)
class Move:
    """One switch or rollback: when it was asked for and answered (monotonic), and what it took."""

    model: str
    kind: str
    source: str
    target: str
    begin: float
    end: float
    prepare_ms: float
    flip_ms: float


def port_near(host: str, wanted: int, taken: int = 0) -> int:
    """``wanted`` if it can be bound (and is not ``taken``), else a free port."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            found: int = probe.getsockname()[1]
            if found != taken:
                return found
    raise DemoFailed(f"no port can be bound on {host}")


class DemoServer:
    """`hotswap serve` on ``models``. Use `start`, then the rest, then `stop`."""

    def __init__(self, folder: Path, host: str, port: int, control_port: int) -> None:
        self.host, self.models, self.log = host, folder / "models", folder / "server.log"
        self.port = port_near(host, port)
        self.control_port = port_near(host, control_port, taken=self.port)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx2.AsyncClient(base_url=self.control_url, timeout=120.0)

    @property
    def url(self) -> str:
        """Where predictions are asked for."""
        return f"http://{self.host}:{self.port}"

    @property
    def control_url(self) -> str:
        """Where versions are switched."""
        return f"http://{self.host}:{self.control_port}"

    async def start(self, trusted: Sequence[str] = ()) -> None:
        """Start it and wait until it is ready. Raises DemoFailed with what its log says last.

        ``trusted``: digests of the artifacts that may run code, and no others.
        """
        self._process = self._launch(trusted)
        deadline = time.monotonic() + START_SECONDS
        async with httpx2.AsyncClient(timeout=5.0) as client:
            for url in (f"{self.url}/v2/health/ready", f"{self.control_url}/readyz"):
                await self._until_ok(client, url, deadline)

    def _launch(self, trusted: Sequence[str]) -> subprocess.Popen[bytes]:
        settings = self._folder / "server.yaml"
        # A new version folder is noticed sooner than a production server would look.
        quick = {"poll_seconds": 0.5, "settle_seconds": 0.5}
        settings.write_text(yaml.safe_dump(quick | {"trust_digests": list(trusted)}))
        command = [sys.executable, "-m", "hotswap", "serve", str(self.models)]
        command += ["--host", self.host, "--port", str(self.port)]
        command += ["--control-host", self.host, "--control-port", str(self.control_port)]
        command += ["--state-dir", str(self._folder / "state"), "--config", str(settings)]
        with self.log.open("wb") as log:
            # In a session of its own: Ctrl-C is ours alone, and we stop it in good order.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    async def _until_ok(self, client: httpx2.AsyncClient, url: str, deadline: float) -> None:
        while True:
            with contextlib.suppress(httpx2.HTTPError):
                if (await client.get(url)).status_code == 200:
                    return
            self.require_alive()
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"the server is not ready after {START_SECONDS:.0f} s{self._tail()}"
                )
            await asyncio.sleep(0.05)

    def require_alive(self) -> None:
        """Raise DemoFailed if the server has ended."""
        if self._process is None or self._process.poll() is not None:
            code = None if self._process is None else self._process.returncode
            raise DemoFailed(f"the server ended with code {code}{self._tail()}")

    def _tail(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").strip().splitlines()[-5:]
            if lines:
                return "; its log ends: " + " / ".join(lines)
        return ""

    async def stop(self) -> int:
        """SIGTERM, and wait; its exit code. Kills it (code -9) if it takes longer than allowed."""
        await self._client.aclose()
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.terminate()
        try:
            return await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    async def active(self, model: str) -> str:
        """The version that answers now."""
        return str((await self._ask("GET", f"/api/v1/models/{model}"))["active"])

    async def registered(self, model: str, version: str, patience: float = 30.0) -> None:
        """Wait until the server has noticed and registered a version."""
        deadline = time.monotonic() + patience
        while True:
            shown = await self._ask("GET", f"/api/v1/models/{model}")
            if any(each["version"] == version for each in shown["versions"]):
                return
            self.require_alive()
            if time.monotonic() > deadline:
                raise DemoFailed(f"{model} {version} was not noticed within {patience:.0f} s")
            await asyncio.sleep(0.05)

    async def move(self, model: str, kind: str, version: str | None = None) -> Move:
        """``kind`` is switch (to ``version``) or rollback; answers when the traffic has moved."""
        body = {"version": version} if version else {}
        begin = time.monotonic()
        answer = await self._ask("POST", f"/api/v1/models/{model}/{kind}", body)
        end = time.monotonic()
        return Move(
            model,
            kind,
            str(answer["from"]),
            str(answer["to"]),
            begin,
            end,
            float(answer["prepare_ms"]),
            float(answer["flip_ms"]),
        )

    async def roll_out(self, body: dict[str, Any]) -> RolloutView:
        """Start a rollout; as it is at first."""
        return read_rollout(await self._ask("POST", "/api/v1/rollouts", body))

    async def rollout(self, id: str) -> RolloutView:
        """A rollout as it stands."""
        return read_rollout(await self._ask("GET", f"/api/v1/rollouts/{id}"))

    async def journal(self, id: str) -> list[JournalView]:
        """What a rollout knew and decided, in order."""
        return read_journal(await self._ask("GET", f"/api/v1/rollouts/{id}/journal"))

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            answer = await self._client.request(method, path, json=body)
        except httpx2.HTTPError as problem:
            self.require_alive()
            raise DemoFailed(f"{method} {path} got no answer: {problem}") from problem
        if answer.status_code >= 300:
            raise DemoFailed(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json()
