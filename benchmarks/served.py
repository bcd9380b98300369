"""A server as the benchmarks see it: how to start it, what to send, how to read the label."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import artifacts, processes
from benchmarks.paths import MODELS


@dataclass(frozen=True)
class Served:
    """One setting of one server. ``protocol`` names a body of `artifacts.bodies`."""

    name: str
    setting: str
    command: list[str]
    port: int
    path: str
    protocol: str
    label: Callable[[Any], object] | None
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None

    @property
    def url(self) -> str:
        """Where requests go."""
        return f"http://127.0.0.1:{self.port}{self.path}"

    @property
    def body(self) -> Path:
        """The file with one request."""
        return MODELS / f"{self.protocol}-{artifacts.CHECK_ROWS[0]}.json"

    def check(self) -> None:
        """Ask for each row whose label is known; raises ServerFailed unless the answer is right."""
        for row, right in artifacts.labels().items():
            text = processes.post(self.port, self.path, artifacts.body(self.protocol, row))
            if self.label is None:
                continue
            answer = json.loads(text)
            got = self.label(answer)
            if int(float(str(got))) != right:
                raise processes.ServerFailed(f"{self.name} answered {got!r}, not {right}: {answer}")

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """The server, up and answering rightly, until the block ends."""
        name = f"{self.name}-{self.setting}".replace(" ", "-").replace(",", "")
        with processes.running(name, self.command, env=self.env, cwd=self.cwd, ready=self.check):
            yield
