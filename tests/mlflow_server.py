"""A real MLflow tracking server on SQLite for tests, and its REST API by the standard library."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

_START_SECONDS = 90.0
#: Webhooks may be sent to this machine, and have secrets. No jobs: eight processes would run them.
_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_CACHE_TTL": "0",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "b2h-aHN3YXAtdGVzdHMtb25seS1rZXktMzItYnl0ZXM=",
}


class MlflowServer:
    """`mlflow server` on a free loopback port, with its artifacts behind it.

    It can be killed and started again on the same port and database.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={self.port}",
            f"--backend-store-uri=sqlite:///{self.folder}/mlflow.db",
            f"--artifacts-destination={self.folder}/artifacts", "--workers=1",
        ]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=os.environ | _ENVIRONMENT, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "server.log").read_text(errors="replace")[-5000:]

    def kill(self) -> None:
        """At once, with its workers."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    # --- its API

    def call(self, method: str, path: str, body: object = None, api: str = "api/2.0/mlflow") -> Any:
        """One call; the answer's JSON. Raises AssertionError with what it says otherwise."""
        data = None
        if method == "GET" and body:
            assert isinstance(body, dict)
            path += "?" + urllib.parse.urlencode(body)
        elif body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{api}/{path}", data, method=method)
        request.add_header(
            "content-type",
            "application/octet-stream" if isinstance(body, bytes) else "application/json",
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{path}: {error.code} {error.read().decode()}") from None

    def create_model(self, name: str) -> None:
        """A registered model without versions."""
        self.call("POST", "registered-models/create", {"name": name})

    def put(self, place: str, name: str, content: bytes) -> None:
        """One file of what is kept under ``place``."""
        path = urllib.parse.quote(f"artifacts/{place}/{name}")
        self.call("PUT", path, content, api="api/2.0/mlflow-artifacts")

    def publish(self, name: str, folder: Path, source: str = "") -> str:
        """A new version whose files are those of ``folder``, as a run logged them; its number."""
        body = {"name": name, "source": source}
        if not source:
            info = self.call("POST", "runs/create", {"experiment_id": "0"})["run"]["info"]
            body |= {"source": f"{info['artifact_uri']}/model", "run_id": info["run_id"]}
            place = self.place(body["source"])
            for path in folder.rglob("*"):
                if path.is_file():
                    self.put(place, str(path.relative_to(folder)), path.read_bytes())
        made = self.call("POST", "model-versions/create", body)
        return str(made["model_version"]["version"])

    def place(self, source: str) -> str:
        """Where the files of a version with this source are kept, for `put`."""
        return source.removeprefix("mlflow-artifacts:/")

    def source(self, name: str, version: str) -> str:
        """Where a version's files are, by the server's word."""
        made = self.call("GET", "model-versions/get", {"name": name, "version": version})
        return str(made["model_version"]["source"])

    def alias(self, name: str, alias: str, version: str) -> None:
        """Move an alias."""
        body = {"name": name, "alias": alias, "version": version}
        self.call("POST", "registered-models/alias", body)

    def drop_alias(self, name: str, alias: str) -> None:
        """Remove an alias."""
        self.call("DELETE", "registered-models/alias", {"name": name, "alias": alias})

    def stage(self, name: str, version: str, stage: str) -> None:
        """Put a version into a stage."""
        body = {"name": name, "version": version, "stage": stage, "archive_existing_versions": True}
        self.call("POST", "model-versions/transition-stage", body)

    def delete_version(self, name: str, version: str) -> None:
        """Delete a version."""
        self.call("DELETE", "model-versions/delete", {"name": name, "version": version})

    def delete_model(self, name: str) -> None:
        """Delete a model with its versions."""
        self.call("DELETE", "registered-models/delete", {"name": name})

    def webhook(self, name: str, url: str, secret: str) -> None:
        """Have an address told of every alias that is made or removed."""
        events = [
            {"entity": "MODEL_VERSION_ALIAS", "action": action} for action in ("CREATED", "DELETED")
        ]
        body = {"name": name, "url": url, "secret": secret, "events": events}
        self.call("POST", "mlflow/webhooks", body, api="api/2.0")

    def aliases(self, name: str) -> dict[str, str]:
        """Its aliases."""
        model = self.call("GET", "registered-models/get", {"name": name})["registered_model"]
        return {each["alias"]: str(each["version"]) for each in model.get("aliases", [])}

    def tags(self, name: str, version: str) -> dict[str, str]:
        """A version's tags."""
        made = self.call("GET", "model-versions/get", {"name": name, "version": version})
        return {each["key"]: each["value"] for each in made["model_version"].get("tags", [])}
