"""One ``hotswap serve`` for tests: started on free ports, asked, hurt, and always stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from hotswap.app.last import Last, LastRun
from tests.e2e import processes
from tests.e2e.processes import Process

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0

T = TypeVar("T")


class Response(NamedTuple):
    """An answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of an error."""
        return str(self.json["error"])


def wait_until(
    condition: Callable[[], T | None], what: str, seconds: float = PATIENCE, every: float = 0.02
) -> T:
    """What ``condition`` gives once it is true. Fails, naming ``what``, if that takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}; last seen: {value!r}")
        time.sleep(every)


def free_port() -> int:
    """A loopback TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of its own, and with the package's source."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HOTSWAP_")}
    return clean | {"PYTHONPATH": str(ROOT / "src")} | more


def run_command(*arguments: str, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run ``hotswap …`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "hotswap", *arguments],
        env=environment(), capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


class Server:
    """``hotswap serve``; a context manager that stops it and checks that nothing survived."""

    def __init__(
        self,
        models: Path | None,
        state_dir: Path,
        *flags: str,
        workers: int = 2,
        trust_code: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.models = models
        self.state_dir = state_dir
        self.log_file = state_dir.with_name(state_dir.name + ".log")
        self.data_port = free_port()
        self.control_port = free_port()
        arguments = ["serve", *([str(models)] if models else [])]
        arguments += [f"--state-dir={state_dir}", f"--workers={workers}", "--log-format=json"]
        arguments += [f"--port={self.data_port}", f"--control-port={self.control_port}"]
        arguments += ["--trust-code"] if trust_code else []
        given = {flag.partition("=")[0] for flag in flags}
        quick = ("--drain-seconds=0.2", "--poll-seconds=0.2", "--settle-seconds=0.2")
        arguments += [flag for flag in quick if flag.partition("=")[0] not in given]
        self.command = [sys.executable, "-m", "hotswap", *arguments, *flags]
        self.env = dict(env or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: dict[int, Process] = {}

    # --- life

    def start(self, *, ready: bool = True) -> Self:
        """Start it and, unless told otherwise, wait until it says that it is ready."""
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                self.command, env=environment(**self.env), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, process_group=0,
            )  # fmt: skip
        if ready:
            try:
                self.wait_ready()
            except BaseException:
                self.kill()
                raise
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.process is None:
            return
        if kind is not None:
            self.kill()
            sys.stderr.write(f"--- the server's log\n{self.log()[-20_000:]}\n")
            return
        self.stop()

    def stop(self, number: int = signal.SIGTERM, seconds: float = 45.0) -> int:
        """Tell it to end and wait; its exit status. Fails if a process of it survives."""
        process = self.process
        assert process is not None
        self.note()
        if process.poll() is None:
            process.send_signal(number)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not end in {seconds:g} s") from None
        self.process = None
        self.expect_nobody()
        return status

    def kill(self) -> None:
        """SIGKILL for the supervisor, and for whatever it leaves."""
        self.note()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        deadline = time.monotonic() + 5
        while any(map(processes.alive, self.seen.values())) and time.monotonic() < deadline:
            time.sleep(0.02)
        for each in self.seen.values():
            if processes.alive(each):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGKILL)

    def expect_nobody(self, seconds: float = 5.0) -> None:
        """Every process that was ever noted is gone within that time."""

        def nobody() -> bool:
            return not any(map(processes.alive, self.seen.values()))

        try:
            wait_until(nobody, "every process of the server to be gone", seconds)
        except AssertionError:
            left = [processes.command(p.pid) for p in self.seen.values() if processes.alive(p)]
            self.kill()
            raise AssertionError(f"these processes outlived their server: {left}") from None

    def note(self) -> None:
        """Remember all processes there are now, for `expect_nobody`."""
        if self.process is not None:
            for each in processes.descendants(self.process.pid):
                self.seen[each.pid] = each

    def log(self) -> str:
        """All that it wrote to its standard output and error."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def log_lines(self) -> Iterator[dict[str, Any]]:
        """The structured lines of its log."""
        for line in self.log().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    yield entry

    # --- processes

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self.process is not None
        return self.process.pid

    def _children(self, module: str) -> list[int]:
        self.note()
        return sorted(
            p.pid
            for p in processes.descendants(self.pid)
            if p.parent == self.pid and module in processes.command(p.pid)
        )

    def control_pids(self) -> list[int]:
        """One, while it lives."""
        return self._children("hotswap.app.control")

    def worker_pids(self) -> list[int]:
        """Of all workers, old ones that drain included."""
        return self._children("hotswap.app.worker")

    def recorder_pids(self) -> list[int]:
        """One, while it lives and records are on."""
        return self._children("hotswap.app.recorder")

    def nursery_pids(self) -> list[int]:
        """The one in use and its spare."""
        sockets = processes.unix_sockets()
        return [
            p for p in self._children("hotswap.app.nursery") if processes.is_nursery(p, sockets)
        ]

    def host_pids(
        self, model: str | None = None, version: str | None = None, twin: bool | None = None
    ) -> list[int]:
        """Of the hosts that listen; of one model or version, twins or not, if told."""
        names = {
            f"h{spec.host}"
            for spec in self.last().hosts
            if model in (None, spec.model)
            and version in (None, spec.version)
            and twin in (None, spec.twin)
        }
        sockets = processes.unix_sockets()
        return [
            pid
            for pid in self._children("hotswap.app.nursery")
            if any(
                os.path.basename(sockets.get(inode, ("", ""))[1]) in names
                for inode in processes.inodes(pid)
            )
        ]

    def last(self) -> Last:
        """What the supervisor would start again."""
        notes = LastRun(self.state_dir / "last.msgpack")
        return wait_until(notes.read, "the supervisor's notes", 5)

    def worker_of(self, client_port: int) -> int | None:
        """The worker that holds the connection from this port."""
        inode = processes.connection_inode(self.data_port, client_port)
        return next((pid for pid in self.worker_pids() if inode in processes.inodes(pid)), None)

    # --- asking

    def ask(
        self,
        port: int,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = PATIENCE,
    ) -> Response:
        """One request on a fresh connection; ``body`` is bytes, or becomes JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
        sent: dict[str, str] = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Response(response.status, names, response.read())
        finally:
            connection.close()

    def data(self, method: str, path: str, body: object = None, **more: Any) -> Response:
        """Ask the data plane."""
        return self.ask(self.data_port, method, path, body, **more)

    def control(self, method: str, path: str, body: object = None, **more: Any) -> Response:
        """Ask the control plane."""
        return self.ask(self.control_port, method, path, body, **more)

    def predict(self, model: str, row: Sequence[float] = (1.0, 2.0), **more: Any) -> Response:
        """One row through ``/predict``."""
        body = {"features": list(row), "model": model}
        if "version" in more:
            body["version"] = more.pop("version")
        return self.data("POST", "/predict", body, **more)

    def switch(self, model: str, version: str, **more: Any) -> Response:
        """Switch; the answer, whatever it is."""
        body = {"version": version} | more
        return self.control("POST", f"/api/v1/models/{model}/switch", body)

    def model(self, name: str) -> dict[str, Any]:
        """The control plane's view of a model."""
        answer = self.control("GET", f"/api/v1/models/{name}")
        assert answer.status == 200, answer
        view: dict[str, Any] = answer.json
        return view

    def version(self, model: str, version: str) -> dict[str, Any]:
        """The control plane's view of a version."""
        views = self.model(model)["versions"]
        found = next((view for view in views if view["version"] == version), None)
        assert found is not None, [view["version"] for view in views]
        view: dict[str, Any] = found
        return view

    def has_version(self, model: str, version: str) -> bool:
        """Whether the control plane knows it."""
        answer = self.control("GET", f"/api/v1/models/{model}")
        return answer.status == 200 and version in [v["version"] for v in answer.json["versions"]]

    def stats(self, model: str) -> dict[str, Any]:
        """Merged statistics: success, fail and errors by kind, summed over versions and roles."""
        rows = self.data("GET", f"/v2/models/{model}/stats").json["model_stats"]
        errors: dict[str, int] = {}
        for row in rows:
            for kind, count in row["errors"].items():
                errors[kind] = errors.get(kind, 0) + count
        return {
            "success": sum(row["inference_stats"]["success"]["count"] for row in rows),
            "fail": sum(row["inference_stats"]["fail"]["count"] for row in rows),
            "inflight": sum(row["inflight"] for row in rows),
            "errors": errors,
        }

    # --- waiting

    def is_ready(self) -> bool:
        """Whether a worker says so."""
        try:
            return self.data("GET", "/v2/health/ready", seconds=5).status == 200
        except OSError:
            return False

    def wait_ready(self, seconds: float = PATIENCE) -> None:
        """Until it is ready; fails at once if it ends instead."""
        process = self.process
        assert process is not None

        def settled() -> bool:
            return process.poll() is not None or self.is_ready()

        wait_until(settled, "the server to be ready", seconds)
        assert process.poll() is None, f"the server ended with {process.returncode}: {self.log()}"
        self.note()

    def control_answers(self) -> bool:
        """Whether the control plane is up and has its store."""
        try:
            answer = self.control("GET", "/api/v1/models", seconds=5)
        except OSError:
            return False
        return answer.status == 200

    def wait_control(self) -> None:
        """Until the control plane is up and has its store."""
        wait_until(self.control_answers, "control to answer")
