"""Our own server, as a user starts it: `hotswap serve`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.paths import CACHE, MODELS, ROOT
from benchmarks.served import Served

WORK = CACHE / "work"


class Refused(Exception):
    """Control answered with an error; the message is its own."""


class Hotswap:
    """`hotswap serve MODELS` on free ports with a fresh state directory."""

    def __init__(
        self, models: Path, *flags: str, name: str = "hotswap", workers: int | None = None
    ):
        self.models, self.name = models, name
        self.port, self.control_port = processes.free_port(), processes.free_port()
        self.state = WORK / f"state-{name}"
        self.command = [
            sys.executable, "-m", "hotswap", "serve", str(models),
            "--port", str(self.port), "--control-port", str(self.control_port),
            "--state-dir", str(self.state), *flags,
        ]  # fmt: skip
        if workers is not None:
            self.command += ["--workers", str(workers)]
        self.env = {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        }
        self.pid = 0

    def served(self, setting: str, protocol: str = "v2", path: str | None = None) -> Served:
        """This server as one of the contestants; ``path`` and ``protocol`` say what is sent."""
        self.clean()
        return Served(
            self.name,
            setting,
            self.command,
            self.port,
            path or "/v2/models/bench/infer",
            protocol,
            v2_label if protocol.startswith("v2") else lambda answer: answer["prediction"],
            self.env,
        )

    def clean(self) -> None:
        """Forget what an earlier run left."""
        shutil.rmtree(self.state, ignore_errors=True)

    @contextlib.contextmanager
    def run(self) -> Iterator[Hotswap]:
        """The server, ready, until the block ends."""
        self.clean()
        with processes.running(
            self.name, self.command, env=self.env, ready=self.require_ready
        ) as process:
            self.pid = process.pid
            yield self

    def require_ready(self) -> None:
        """Raise ServerFailed unless the data plane says that it is ready."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise processes.ServerFailed(f"not ready: {text[:200]!r}")

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The control plane's JSON answer; raises Refused with its message above 299."""
        connection = http.client.HTTPConnection("127.0.0.1", self.control_port, timeout=120)
        try:
            content = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json"} if content else {}
            connection.request(method, f"/api/v1{path}", content, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status > 299:
            raise Refused(f"{method} {path}: {answer.status} {text.decode(errors='replace')[:300]}")
        return json.loads(text) if text else None

    def switch(self, version: str, model: str = "bench") -> dict[str, Any]:
        """Switch, and what control says of it."""
        answer: dict[str, Any] = self.control(
            "POST", f"/models/{model}/switch", {"version": version}
        )
        return answer

    def version(self, version: str, model: str = "bench") -> dict[str, Any]:
        """What control shows of one version."""
        shown = self.control("GET", f"/models/{model}")
        return next(each for each in shown["versions"] if each["version"] == version)


def v2_label(answer: dict[str, Any]) -> object:
    """The label in an Open Inference Protocol answer for one row."""
    outputs = {each["name"]: each for each in answer["outputs"]}
    return outputs["predict"]["data"][0]


def body_file(name: str, content: bytes) -> Path:
    """A request kept in the cache under ``name``."""
    path = MODELS / name
    path.write_bytes(content)
    return path
