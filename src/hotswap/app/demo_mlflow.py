"""`make demo-mlflow`: a real MLflow server decides what serves, under live traffic.

It starts MLflow on SQLite, trains and registers small models, follows their aliases, moves them,
and lets a challenger be decided, which moves an alias back. ``python -m hotswap.app.demo_mlflow``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import io
import logging
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx2
import numpy as np
import yaml
from rich.console import Console

from hotswap.app.demo_bench import DemoModel
from hotswap.app.demo_server import DemoFailed, DemoServer, port_near
from hotswap.app.demo_traffic import Traffic
from hotswap.app.platform import die_with_parent
from hotswap.config import fetching_environment
from hotswap.errors import HotswapError, MissingDependency

FOLDER: Final = Path("demo-mlflow")
POLL_SECONDS: Final = 2.0
PATIENCE: Final = 90.0
#: Regularisation of each version.
STRENGTHS: Final = {
    "cancer": (0.01, 1.0),
    "digits": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
}
#: What a server that has just started still imports, so that later versions load quickly.
SETTLING: Final = 8.0
#: What the challenger must show, wide enough for a demo's minute.
ROLLOUT: Final[dict[str, Any]] = {
    "config": {"min_pairs": 300},
    "guardrails": [{"metric": "error_rate", "max_increase": 0.02}],
    "bake_seconds": 5,
    "watch_seconds": 0,
}
_MLFLOW: Final = "mlflow"
_STATE: Final = "state"
#: MLflow would start eight more processes for jobs, which nothing here has.
_NO_JOBS: Final = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def cleared(folder: Path) -> Path:
    """``folder``, made if need be, without what an earlier demo left in it: the rest may be the
    user's own.
    """
    folder = folder.absolute()
    for name in (_MLFLOW, _STATE):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Tracking:
    """The MLflow server: a process of its own on a free port, its database in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port_near('127.0.0.1', 5000)}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(parents=True)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", self.url.rpartition(":")[2], "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs here yet
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=fetching_environment() | _NO_JOBS, start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        async with httpx2.AsyncClient(timeout=5.0) as client:
            while True:
                with contextlib.suppress(httpx2.HTTPError):
                    if (await client.get(f"{self.url}/health")).status_code == 200:
                        return
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise DemoFailed(f"MLflow did not start: see {self.folder / 'server.log'}")
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """End it, with its workers."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, 10.0)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()


class FollowingServer(DemoServer):
    """`hotswap serve` that has no folder of models: a registry says what it serves."""

    def __init__(self, folder: Path, tracking: str) -> None:
        super().__init__(folder, "127.0.0.1", 8080, 8081)
        self._tracking = tracking

    def _launch(self, trusted: Sequence[str]) -> subprocess.Popen[bytes]:
        settings = self._folder / "server.yaml"
        wanted = {
            "host": self.host, "port": self.port, "control_port": self.control_port,
            "state_dir": str(self._folder / _STATE), "registry": "mlflow",
            "tracking_uri": self._tracking, "registry_poll_seconds": POLL_SECONDS,
            "registry_write": True, "registry_rollout": ROLLOUT,
        }  # fmt: skip
        settings.write_text(yaml.safe_dump(wanted))
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "hotswap", "serve", "--config", str(settings)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip

    async def rollouts(self, model: str) -> list[dict[str, Any]]:
        """Of a model, the newest first."""
        answer: dict[str, Any] = await self._ask("GET", f"/api/v1/rollouts?model={model}")
        return list(answer["rollouts"])


def register(url: str, say: Any) -> tuple[list[DemoModel], Any]:
    """Train and register versions of two models; held-out rows, and MLflow's client."""
    import mlflow
    from mlflow.models import infer_signature
    from sklearn.datasets import load_breast_cancer, load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(url)
    mlflow.set_experiment("demo")
    models = []
    for name, load in (("cancer", load_breast_cancer), ("digits", load_digits)):
        x, y = load(return_X_y=True)
        rows, live, labels, truth = train_test_split(x, y, test_size=0.5, random_state=0)
        scores = []
        for strength in STRENGTHS[name]:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
            model.fit(rows, labels)
            with mlflow.start_run(run_name=f"{name} C={strength:g}"):
                mlflow.sklearn.log_model(
                    model, name="model", registered_model_name=name, serialization_format="skops",
                    signature=infer_signature(rows, model.predict(rows)),
                    pip_requirements=["scikit-learn"],
                )  # fmt: skip
            scores.append(f"{np.mean(model.predict(live) == truth):.3f}")
        say(f"{name}: {len(scores)} versions, with accuracy {', '.join(scores)}")
        models.append(DemoModel(name, "classification", np.asarray(live, float), truth, ()))
    client = mlflow.MlflowClient()
    for model in models:
        client.set_registered_model_alias(model.name, "champion", "1")
    return models, client


class Play:
    """One run of it."""

    def __init__(self, console: Console, folder: Path) -> None:
        self._console = console
        self._folder = folder
        self._tracking = Tracking(folder / _MLFLOW)
        self.server = FollowingServer(folder, self._tracking.url)

    def _title(self, text: str) -> None:
        self._console.print(f"\n[bold]{text}[/]")

    def _line(self, text: str) -> None:
        self._console.print(f"   {text}", highlight=False, markup=False, soft_wrap=True)

    async def run(self, *, exit: bool) -> int:
        """All of it; 0 only if no request failed. Both servers have ended when it returns."""
        try:
            self._title("1. A tracking server on SQLite: mlflow server")
            await self._tracking.start()
            self._line(f"it answers on {self._tracking.url}")
            self._title("2. Training and registering models on scikit-learn's bundled data")
            with (  # MLflow says much that a demo need not
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                models, client = await asyncio.to_thread(register, self._tracking.url, self._line)
            self._title(f"3. hotswap serve --registry mlflow --tracking-uri {self._tracking.url}")
            await self.server.start()
            for model in models:
                await self._until_active(model.name, "1")
            self._line(f"version 1, the champion of each, answers on {self.server.url}")
            traffic = Traffic("127.0.0.1", self.server.port, [*models, *models] * 2)
            try:
                await self._move(client, traffic)
                await self._challenge(client)
            finally:
                await traffic.stop()
            failed = [answer.problem for answer in traffic.answers if answer.problem]
            self._title("6. The account")
            self._line(f"{len(traffic.answers):,} requests, {len(failed)} failed")
            for problem in sorted(set(failed))[:5]:
                self._line(problem)
            if not exit:
                await self._stay()
            return 1 if failed else 0
        finally:
            await self.server.stop()
            await self._tracking.stop()

    async def _move(self, client: Any, traffic: Traffic) -> None:
        self._title(f"4. Moving the alias champion of digits, polled every {POLL_SECONDS:g} s")
        await asyncio.sleep(SETTLING)
        took = []
        versions = [str(number + 1) for number in range(len(STRENGTHS["digits"]))]
        for number, version in enumerate([*versions[1:], "1"]):
            seen = len(traffic.answers)
            began = time.monotonic()
            await asyncio.to_thread(
                client.set_registered_model_alias, "digits", "champion", version
            )
            took.append(await self._first(traffic, seen, "digits", version) - began)
            how = "back" if version == "1" else "fetched, hashed, loaded and warmed"
            self._line(f"champion → {version}: its first answer after {took[-1]:.2f} s ({how})")
            await asyncio.sleep(0.37 * (number + 1))  # not in step with the polls
        new = took[:-1]
        self._line(
            f"median {statistics.median(new):.2f} s, most {max(new):.2f} s over {len(new)} moves to "
            "a new version"
        )

    async def _first(self, traffic: Traffic, seen: int, model: str, version: str) -> float:
        """When (monotonic) the version's first answer after the first ``seen`` answers was there."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for answer in traffic.answers[seen:]:
                if (answer.model, answer.version) == (model, version):
                    return answer.sent + answer.seconds
            seen = max(seen, len(traffic.answers) - 64)
            self.server.require_alive()
            await asyncio.sleep(0.01)
        raise DemoFailed(f"version {version} of {model} gave no answer in {PATIENCE:g} s")

    async def _challenge(self, client: Any) -> None:
        self._title("5. A challenger for cancer: version 2")
        await asyncio.to_thread(client.set_registered_model_alias, "cancer", "challenger", "2")
        deadline = time.monotonic() + PATIENCE
        while True:
            version = await asyncio.to_thread(client.get_model_version, "cancer", "2")
            if "hotswap.verdict" in version.tags:
                break
            if time.monotonic() > deadline:
                raise DemoFailed(f"the challenger was not decided in {PATIENCE:g} s")
            await asyncio.sleep(0.2)
        rollout = (await self.server.rollouts("cancer"))[0]
        for key, value in sorted(version.tags.items()):
            self._line(f"tag of cancer 2: {key} = {value}")
        for each in rollout["history"]:
            self._line(f"{each['phase']}: {each['message']}")
        aliases = (await asyncio.to_thread(client.get_registered_model, "cancer")).aliases
        self._line(f"aliases of cancer in MLflow: {aliases}")
        if str(aliases["champion"]) != "2" or version.tags["hotswap.verdict"] != "promoted":
            raise DemoFailed("a challenger that is no worse should have been promoted")
        await self._until_active("cancer", "2")

    async def _until_active(self, model: str, version: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(DemoFailed):
                if await self.server.active(model) == version:
                    return
            self.server.require_alive()
            await asyncio.sleep(0.05)
        raise DemoFailed(f"version {version} of {model} is not active after {PATIENCE:g} s")

    async def _stay(self) -> None:
        self._title("It stays up; Ctrl-C stops it")
        self._line(f"MLflow       {self._tracking.url}")
        self._line(f"the registry {self.server.control_url}/api/v1/registry")
        self._line("Move an alias in MLflow's pages (Models), and ask again.")
        while True:
            self.server.require_alive()
            await asyncio.sleep(0.5)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code. What an earlier run left in the folder is replaced."""
    parser = argparse.ArgumentParser(prog="demo-mlflow")
    parser.add_argument("--exit", action="store_true", help="end after the account")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args(arguments)
    console = Console(file=sys.stdout)
    try:
        if importlib.util.find_spec("mlflow.server") is None:
            raise MissingDependency("the demo starts a server of MLflow's: pip install mlflow")
        return asyncio.run(Play(console, cleared(given.folder)).run(exit=given.exit))
    except HotswapError as problem:
        console.print(f"The demo failed: {problem}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 0


if __name__ == "__main__":
    sys.exit(main())
