"""The example pipelines in examples/ci/, step by step: a good version passes, bad ones fail the build."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.e2e.harness import ROOT, Server, environment
from tests.models import breast_cancer, write_breast_cancer

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

CI = ROOT / "examples" / "ci"
BIN = Path(sys.executable).parent
SAMPLES = "samples: [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]\n"
#: What a bad version answers to all that is no sample: the chance of each class.
BAD = {
    "constant": "chance[:, 0] = 1.0",
    "erroring": "raise ValueError('broken')",
    "nan": "chance[:] = np.nan",
}
MODEL = """
import numpy as np


class Model:
    def load(self, path):
        pass

    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1).astype(np.int64)

    def predict_proba(self, X):
        chance = np.full((len(X), 2), 0.5)
        if X[0, 0]:  # a sample's is zero
            {predict}
        return chance
"""
SIGNATURE = """
signature:
  inputs: [{name: X, datatype: FP64, shape: [-1, 30]}]
  outputs:
    - {name: predict, datatype: INT64, shape: [-1]}
    - {name: predict_proba, datatype: FP64, shape: [-1, 2]}
"""


class Done(NamedTuple):
    """A job that ran: its exit status, all that it printed, and its summary."""

    status: int
    text: str
    summary: str


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository as the example wants it, in which v1 is good."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(CI / "hotswap.yaml", folder)
    write(folder, "v1", seed=0)
    return folder


@pytest.fixture
def server(checkout: Path, tmp_path: Path) -> Iterator[Server]:
    """One that may read the checkout, and has no model yet."""
    running = Server(None, tmp_path / "state", f"--allow-root={checkout}", workers=1)
    try:
        running.start(ready=False)  # it is ready when it has a model
        running.wait_control()
        yield running
    finally:
        running.stop()


def write(checkout: Path, version: str, *, seed: int = 0, bad: str = "") -> None:
    """A version's files: a trained model, or one that is bad on what is no sample."""
    folder = checkout / "models" / "tumours" / version
    if not bad:
        write_breast_cancer(folder, "skops", seed)
        (folder / "version.yaml").write_text(SAMPLES)
        return
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL.replace("{predict}", BAD[bad]))
    (folder / "version.yaml").write_text(SAMPLES + SIGNATURE)


@contextmanager
def traffic(server: Server) -> Iterator[list[str]]:
    """Real rows, one a request, as fast as they are answered; the versions that answered."""
    rows = breast_cancer()[0].tolist()
    answered: list[str] = []
    over = threading.Event()

    def ask(first: int) -> None:
        link = http.client.HTTPConnection("127.0.0.1", server.data_port, timeout=30)
        number = first
        while not over.is_set():
            number += 1
            body = {"model": "tumours", "features": rows[number % len(rows)]}
            link.request("POST", "/predict", json.dumps(body), {"content-type": "application/json"})
            response = link.getresponse()
            content = response.read()
            early = response.status in (404, 503) and not answered  # nothing is released yet
            if early:
                over.wait(0.05)
                continue
            assert response.status == 200, content
            answered.append(response.headers["x-hotswap-version"])
            over.wait(0.002)
        link.close()

    failures: list[BaseException] = []

    def guarded(first: int) -> None:
        try:
            ask(first)
        except BaseException as problem:  # noqa: BLE001 - told by the test's own thread
            failures.append(problem)

    threads = [threading.Thread(target=guarded, args=(first,)) for first in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []


def run(job: dict[str, Any], checkout: Path, server: Server) -> Done:
    """The steps of a GitHub job as its runner runs them."""
    summary = checkout.parent / "summary.md"
    summary.write_text("")
    text, status = "", 0
    for step in job["steps"]:
        if "run" not in step or step["name"].startswith("Install"):
            continue
        if status and step.get("if") != "always()":
            continue
        done = bash(step["run"], checkout, server, GITHUB_STEP_SUMMARY=str(summary))
        text += done.stdout + done.stderr
        status = status or done.returncode
    return Done(status, text, summary.read_text())


def bash(
    script: str, checkout: Path, server: Server, **more: str
) -> subprocess.CompletedProcess[str]:
    """One script as a runner's ``shell: bash`` runs it."""
    variables = environment(
        PATH=f"{BIN}:{os.environ['PATH']}",
        HOTSWAP_URL=f"http://127.0.0.1:{server.control_port}",
        HOTSWAP_TRUST_CODE="1",  # the bad versions are model.py files
        **more,
    )
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=checkout, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=180, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    """The jobs of the GitHub example, by name."""
    jobs: dict[str, Any] = yaml.safe_load((CI / "github-workflow.yml").read_text())["jobs"]
    return jobs


def test_a_good_version_is_promoted(jobs: dict[str, Any], checkout: Path, server: Server) -> None:
    """Both jobs pass, the new version answers, and the same again does nothing."""
    write(checkout, "v2", seed=1)
    review = run(jobs["review"], checkout, server)
    assert review.status == 0, review.text
    assert "roll v2 out (canary, after its gate" in review.summary
    with traffic(server) as answered:
        release = run(jobs["release"], checkout, server)
        assert release.status == 0, release.text
        again = run(jobs["release"], checkout, server)
    assert server.model("tumours")["active"] == "v2"
    assert {"v1", "v2"} == set(answered)
    assert answered[-1] == "v2"
    assert "gate, latency" in release.text
    assert "v2" in release.summary
    assert again.status == 0, again.text
    assert "nothing had to be done" in again.text


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_version_fails_the_build(
    jobs: dict[str, Any], checkout: Path, server: Server, bad: str
) -> None:
    """It is loaded and passes the gate, and what it does to live requests takes it back."""
    write(checkout, "v2", bad=bad)
    with traffic(server) as answered:
        release = run(jobs["release"], checkout, server)
    assert release.status != 0
    assert "v2 ended RolledBack" in release.text
    assert server.model("tumours")["active"] == "v1"
    assert set(answered) == {"v1"}, "no user was answered by it: its shadow was enough"
    assert "RolledBack" in release.summary
    assert run(jobs["release"], checkout, server).status != 0, "it is not tried again"


def test_a_version_that_does_not_fit_is_kept_out_by_the_gate(
    jobs: dict[str, Any], checkout: Path, server: Server
) -> None:
    """No rollout begins: it has not the columns that callers send."""
    write(checkout, "v2", bad="constant")
    settings = checkout / "models" / "tumours" / "v2" / "version.yaml"
    settings.write_text(
        settings.read_text().replace("30]", "2]").replace(SAMPLES, "samples: [[0, 0]]\n")
    )
    with traffic(server) as answered:
        release = run(jobs["release"], checkout, server)
    assert release.status != 0
    assert "the gate does not let v2 through: signature: " in release.text
    assert set(answered) == {"v1"}
    assert server.control("GET", "/api/v1/rollouts").json["rollouts"] == []


def test_the_gitlab_example_does_the_same(checkout: Path, server: Server) -> None:
    """Its scripts pass for a good version."""
    write(checkout, "v2", seed=1)
    pipeline = yaml.safe_load((CI / "gitlab-ci.yml").read_text())
    with traffic(server):
        for name in ("review", "release"):
            job = pipeline[name]
            done = bash("\n".join(job["script"] + job.get("after_script", [])), checkout, server)
            assert done.returncode == 0, done.stdout + done.stderr
    assert (checkout / "rollout.html").stat().st_size > 1000
    assert server.model("tumours")["active"] == "v2"
