"""A real Prometheus of a test's own, from the distribution's package."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import pytest

from tests.e2e.harness import free_port, wait_until

_CONFIG = """
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
scrape_configs:
  - job_name: hotswap
    static_configs: [{targets: ["127.0.0.1:%d"]}]
"""


def program(name: str) -> str:
    """Where ``prometheus`` or ``promtool`` is; skips the test, with the reason, if it is nowhere."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install prometheus)")
    return found


class Prometheus:
    """Scrapes a local port once a second. May be killed and started again.

    As a context manager it is not started, but killed in the end. ``url`` is known from the
    first; what is scraped is said by `start`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        config = self._config = folder / "prometheus.yml"
        self._log = folder / "log"
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._command = [
            program("prometheus"), f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, target: int) -> Self:
        """Start it on ``127.0.0.1:target``, and wait until it answers queries."""
        self._config.write_text(_CONFIG % target)
        with open(self._log, "ab") as log:
            process = self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={}
            )
        try:
            wait_until(lambda: process.poll() is not None or self._ready(), "Prometheus")
            assert process.poll() is None, f"Prometheus ended: {self._log.read_text()[-2000:]}"
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.kill()

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def _ready(self) -> bool:
        try:
            return self._get("/-/ready")[0] == 200
        except OSError:
            return False

    def samples(self, query: str) -> list[dict[str, Any]]:
        """What an instant query gives, as Prometheus tells it."""
        status, body = self._get("/api/v1/query?" + urlencode({"query": query}))
        assert status == 200, body
        found: list[dict[str, Any]] = json.loads(body)["data"]["result"]
        return found

    def wait_for(self, query: str) -> None:
        """Until the query gives a sample."""
        wait_until(lambda: self.samples(query), f"a sample of {query}", every=0.1)
