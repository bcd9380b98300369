"""A real Prometheus scrapes a real server, and the metric source reads it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hotswap.core.strategy import parse
from hotswap.errors import BadInput, MetricsUnavailable
from hotswap.sources.prometheus import PrometheusSource
from tests.e2e.harness import ROOT, Server, wait_until
from tests.e2e.tricks import RAISE, write_trick
from tests.prometheus_server import Prometheus, program

pytestmark = [pytest.mark.integration, pytest.mark.e2e, pytest.mark.timeout(240)]

ERRORS = 'sum(model_prediction_errors_total{model="m"})'
REQUESTS = 'sum(model_prediction_requests_total{model="m"})'
TWO = 'model_version_active{model="m"}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves ``m``; eight requests were good and two were not."""
    root = tmp_path_factory.mktemp("scraped")
    write_trick(root / "models", "m", "v1")
    write_trick(root / "models", "m", "v2")
    write_trick(root / "models", "linted", "v1")
    write_trick(root / "models", "linted", "v2")
    with Server(root / "models", root / "state", workers=1) as server:
        assert server.switch("m", "v1").status == 200
        answers = [server.predict("m", (RAISE if n < 2 else 1.0, 2.0)).status for n in range(10)]
        assert sorted(answers) == [200] * 8 + [500] * 2
        yield server


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("p") / "prometheus") as made:
        made.start(server.control_port)
        made.wait_for(f"{REQUESTS} == 10 and {ERRORS} == 2")
        yield made


@pytest.fixture
async def source(prometheus: Prometheus) -> AsyncIterator[PrometheusSource]:
    async with PrometheusSource(prometheus.url, timeout=30.0) as made:
        yield made


async def test_the_error_ratio_of_a_server(source: PrometheusSource) -> None:
    """The number that a query gives is the one that was counted."""
    assert await source.read(f"{ERRORS} / {REQUESTS}") == pytest.approx(0.2)
    assert await source.read("scalar(sum(up))") == 1.0
    assert await source.read('model_version_active{model="m", version="v1"}') == 1.0


@pytest.mark.parametrize(
    "query",
    [
        'absent_metric{model="m"}',
        f"{ERRORS} > 100",
        "0/0",
        "vector(1)/0",
        "-1/0",
        "scalar(nothing)",
    ],
)
async def test_what_is_no_number_is_no_data(source: PrometheusSource, query: str) -> None:
    """Nothing found, a comparison that is false, NaN and infinities."""
    assert await source.read(query) is None


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("sum(", "refuses the query: .*parse error"),
        ("rate(up)", "refuses the query: .*expected type range vector"),
        ("no_such_function(up)", "refuses the query: .*unknown function"),
        ("up[1m]", "use a function of it"),
        ('"text"', "gives a text"),
        (TWO, "gives 2 samples: aggregate it"),
        (f"{TWO} * on(model) {TWO}", "refuses the query: .*duplicate series"),
    ],
)
async def test_a_wrong_query_is_told_as_one(
    source: PrometheusSource, query: str, says: str
) -> None:
    """In Prometheus' words where it refuses, in ours where it does not."""
    with pytest.raises(BadInput, match=says):
        await source.read(query)


async def test_series_of_a_server_that_is_gone_are_no_data(tmp_path: Path) -> None:
    """Once a scrape fails the last value is not read on, and Prometheus' own end is an outage."""
    write_trick(tmp_path / "models", "m", "v1")
    with (
        Prometheus(tmp_path / "prometheus") as prometheus,
        Server(tmp_path / "models", tmp_path / "state", workers=1) as server,
    ):
        prometheus.start(server.control_port)
        async with PrometheusSource(prometheus.url, timeout=30.0) as source:
            await asyncio.to_thread(prometheus.wait_for, "model_version_active")
            assert await source.read("sum(model_version_active)") == 1.0
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(prometheus.wait_for, "up == 0")
            assert await source.read("sum(model_version_active)") is None
            prometheus.kill()
            with pytest.raises(MetricsUnavailable, match="cannot be reached"):
                await source.read("up")


def test_promtool_finds_nothing_wrong_with_our_metrics(server: Server) -> None:
    """Names, types and help texts are as Prometheus' own linter wants them."""
    tool = program("promtool")
    assert server.switch("linted", "v1").status == 200
    assert server.predict("linted", version="v2").status == 200
    body = {"model": "linted", "version": "v2", "strategy": "immediate"}
    started = server.control("POST", "/api/v1/rollouts", body)
    assert started.status == 201, started
    wait_until(lambda: server.model("linted")["active"] == "v2", "the rollout to promote")
    text = server.control("GET", "/metrics").body
    for family in ("hotswap_rollout_phase", "hotswap_switches_total", "hotswap_cache_hits_total"):
        assert f"\n{family}{{".encode() in text, family
    linted = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True)
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, b"", b"")


def test_the_documented_rules_and_queries_are_sound(tmp_path: Path) -> None:
    """The page's alerts pass promtool, and its rollout is one that can be started."""
    page = (ROOT / "docs" / "howto" / "guard-with-prometheus.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```(yaml|json)\n(.*?)```", page, re.DOTALL))
    rules = tmp_path / "rules.yml"
    rules.write_text(blocks["yaml"])
    checked = subprocess.run([program("promtool"), "check", "rules", str(rules)])
    assert checked.returncode == 0
    spec = parse(json.loads(blocks["json"]))
    assert spec.guardrails[-1].query in page.replace('\\"', '"')


async def test_the_documented_query_fails_closed(source: PrometheusSource) -> None:
    """A counter that does not exist yet is zero only while its server is scraped."""
    counted = "sum(rate(payments_refused_total[2m])) or vector(0)"
    assert await source.read(f'({counted}) and on () (min(up{{job="hotswap"}}) == 1)') == 0.0
    assert await source.read(f'({counted}) and on () (min(up{{job="gone"}}) == 1)') is None
