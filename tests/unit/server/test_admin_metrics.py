"""The metrics, read back with the parser that Prometheus's own client has."""

from __future__ import annotations

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from hotswap.core.stats import ModelStats
from hotswap.errors import StoreError
from hotswap.server.admin import create_app
from hotswap.server.metrics import BUCKETS, cumulative
from hotswap.testing.fake_control import FakeControl

STATS = ModelStats(
    "fraud",
    "v1",
    "stable",
    success=5,
    errors={"model": 2, "timeout": 1},
    success_ns=2_000_000_000,
    fail_ns=500_000_000,
    inflight=3,
    latency={500_000: 1, 500_001: 2, 30_000_000_000: 3, 2**40: 2},
)


async def _samples(control: FakeControl) -> dict[str, list[Sample]]:
    transport = httpx2.ASGITransport(create_app(control))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def _one(samples: list[Sample]) -> Sample:
    (sample,) = samples
    return sample


async def test_the_tallies_are_shown_as_they_are() -> None:
    """Counts, sums and kinds of errors equal those of the statistics."""
    control = FakeControl()
    control.counters = [STATS]
    samples = await _samples(control)
    labels = {"model": "fraud", "version": "v1", "role": "stable"}
    total = _one(samples["model_prediction_requests_total"])
    assert (total.labels, total.value) == (labels, 8)
    errors = {s.labels["kind"]: s.value for s in samples["model_prediction_errors_total"]}
    assert errors == {"model": 2, "timeout": 1}
    assert _one(samples["hotswap_inflight_requests"]).value == 3
    assert _one(samples["model_inference_latency_seconds_count"]).value == 8
    assert _one(samples["model_inference_latency_seconds_sum"]).value == 2.0


async def test_fallbacks_and_dropped_copies_are_shown_where_they_can_be() -> None:
    """Of candidates, and of versions that copies are sent to; zero is shown too."""
    control = FakeControl()
    control.counters = [
        STATS,
        ModelStats("fraud", "v2", "candidate", fallbacks=3),
        ModelStats("fraud", "v2", "shadow", success=4, dropped=7),
    ]
    samples = await _samples(control)
    fallbacks = _one(samples["hotswap_fallbacks_total"])
    assert fallbacks.labels == {"model": "fraud", "version": "v2", "role": "candidate"}
    assert fallbacks.value == 3
    dropped = _one(samples["hotswap_shadow_dropped_total"])
    assert dropped.labels == {"model": "fraud", "version": "v2", "role": "shadow"}
    assert dropped.value == 7


async def test_latency_buckets_are_cumulative_and_end_at_the_count() -> None:
    """A bucket holds what is at or below its bound; +Inf holds all."""
    control = FakeControl()
    control.counters = [STATS]
    buckets = (await _samples(control))["model_inference_latency_seconds_bucket"]
    counts = {sample.labels["le"]: sample.value for sample in buckets}
    assert len(counts) == len(BUCKETS) + 1
    assert (counts["0.0005"], counts["0.001"]) == (1, 3)
    assert (counts["10.0"], counts["30.0"], counts["+Inf"]) == (3, 6, 8)
    values = list(counts.values())
    assert values == sorted(values)


def test_no_latencies_are_empty_buckets() -> None:
    """A version without requests has a histogram of zeros."""
    assert {count for _, count in cumulative({})} == {0.0}


async def test_versions_and_switches_are_shown() -> None:
    """Which is active, its memory and load time; switches and how long they took."""
    control = FakeControl()
    await control.register("fraud", "/m/1", version="v1")
    await control.register("fraud", "/m/2", version="v2")
    await control.switch("fraud", "v1")
    samples = await _samples(control)
    active = {s.labels["version"]: s.value for s in samples["model_version_active"]}
    assert active == {"v1": 1, "v2": 0}
    assert _one(samples["model_load_time_seconds"]).value == 0.25
    memory = {s.labels["version"]: s.value for s in samples["hotswap_model_memory_bytes"]}
    assert memory == {"v1": 8 << 20, "v2": 0}
    switches = _one(samples["hotswap_switches_total"])
    assert (switches.labels, switches.value) == ({"model": "fraud", "result": "done"}, 1)
    assert _one(samples["hotswap_switch_duration_seconds_count"]).value == 1
    assert _one(samples["hotswap_switch_duration_seconds_sum"]).value == 0.0125


async def test_the_counters_outlive_the_store() -> None:
    """When the models cannot be listed, the tallies are still there."""
    control = FakeControl()
    control.counters = [STATS]
    control.failure = StoreError("gone")
    samples = await _samples(control)
    assert "model_prediction_requests_total" in samples
    assert "model_version_active" not in samples


async def test_rollouts_are_shown() -> None:
    """The phase of each model's latest rollout, its weights while it runs, and how they ended."""
    control = FakeControl()
    for version in ("v1", "v2", "v3"):
        await control.register("fraud", f"/m/{version}", version=version)
    await control.switch("fraud", "v1")
    body = {"model": "fraud", "strategy": "canary", "steps": [5]}
    bad = await control.start_rollout(body | {"version": "v2"})
    control.see(bad.id, phase="RolledBack", reason="guardrail", message="errors")
    await control.start_rollout(body | {"version": "v3"})
    samples = await _samples(control)
    phase = _one(samples["hotswap_rollout_phase"])
    labels = {"model": "fraud", "rollout": "r-2", "phase": "Progressing"}
    assert (phase.labels, phase.value) == (labels, 1)
    weights = {s.labels["version"]: s.value for s in samples["hotswap_rollout_weight"]}
    assert weights == {"v1": 0.95, "v3": 0.05}
    total = _one(samples["hotswap_rollouts_total"])
    assert total.value == 1
    assert total.labels == {
        "model": "fraud",
        "strategy": "canary",
        "result": "RolledBack",
        "reason": "guardrail",
    }
    await control.command_rollout("r-2", "abort")
    samples = await _samples(control)
    assert _one(samples["hotswap_rollout_phase"]).labels["phase"] == "RolledBack"
    assert "hotswap_rollout_weight" not in samples
    reasons = {s.labels["reason"]: s.value for s in samples["hotswap_rollouts_total"]}
    assert reasons == {"guardrail": 1, "aborted": 1}


async def test_label_values_are_escaped() -> None:
    """A quote, a backslash or a line break in a role leaves the text readable."""
    control = FakeControl()
    control.counters = [ModelStats("fraud", "v1", 'a"\\\nb')]
    samples = await _samples(control)
    assert _one(samples["hotswap_inflight_requests"]).labels["role"] == 'a"\\\nb'


async def test_what_became_of_records_is_counted() -> None:
    """Only where they are kept."""
    control = FakeControl()
    assert not [name for name in await _samples(control) if "record" in name or "labels" in name]
    control.records = {"lines": 7, "labels": 3, "dropped": 2, "failed": 1}
    samples = await _samples(control)
    names = ("records", "labels", "records_dropped", "records_failed")
    found = [_one(samples[f"hotswap_{name}_total"]).value for name in names]
    assert found == [7, 3, 2, 1]
