"""Drift over HTTP: its routes, and where else it is shown."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from hotswap.core.drift_views import ColumnDrift, DriftView
from hotswap.core.views import ModelView
from hotswap.server.admin import create_app
from hotswap.server.metrics_drift import MOST
from hotswap.testing.fake_control import FakeControl

CAUSE = "above 3: 40 % of the rows, 10 % in the reference"


def column(name: str, distance: float | None, since: float | None = None) -> ColumnDrift:
    cause = CAUSE if since else ""
    return ColumnDrift(
        name, "input", "number", distance, None, 0.1, 1.0, 20.0, since, cause, 0.2, 0.1, 0.0, 0.0, 9
    )


@pytest.fixture
def control() -> FakeControl:
    control = FakeControl()
    control.table["m"] = ModelView("m", "v1", None, 1, None, ())
    columns = (column("input_<x>", 0.4, 1_700_000_000.0), column("input_y", None))
    control.drifts["m"] = DriftView("m", "watching", "input_<x> has drifted", 0.1, (), columns)
    return control


@pytest.fixture
async def client(control: FakeControl) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_app(control))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_what_is_known_is_shown(client: httpx2.AsyncClient) -> None:
    """Column by column; what is not known is null."""
    answer = (await client.get("/api/v1/models/m/drift")).json()
    assert answer["state"] == "watching"
    assert [each["column"] for each in answer["columns"]] == ["input_<x>", "input_y"]
    assert answer["columns"][0]["alarmed_since"] == 1_700_000_000.0
    assert answer["columns"][1]["distance"] is None


async def test_another_reference_is_frozen_on_command(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """The answer is what is known then."""
    answer = await client.post("/api/v1/models/m/drift/reset")
    assert (answer.status_code, answer.json()["state"]) == (200, "collecting")
    assert control.calls == [("reset_drift", "m")]


async def test_where_drift_is_not_watched_it_is_said(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """And nothing can be reset there."""
    control.drifts.clear()
    assert (await client.get("/api/v1/models/m/drift")).json()["state"] == "off"
    assert (await client.post("/api/v1/models/m/drift/reset")).status_code == 409
    assert (await client.get("/api/v1/models/n/drift")).status_code == 404
    assert (await client.get("/api/v1/models/%20/drift")).status_code == 400


async def test_columns_that_drifted_are_alerts_as_long_as_they_are(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """Also after a restart, when the event is long gone."""
    (alert,) = (await client.get("/api/v1/model-switching/alerts")).json()["alerts"]
    assert (alert["severity"], alert["model"], alert["reason"]) == ("warning", "m", "drift")
    assert alert["message"] == f"input_<x> drifted from the reference ({CAUSE})"
    assert alert["at"] == 1_700_000_000.0
    control.drifts.clear()
    assert (await client.get("/api/v1/model-switching/alerts")).json()["alerts"] == []


async def test_the_status_page_lists_them(client: httpx2.AsyncClient, control: FakeControl) -> None:
    """Escaped, and only those that alarmed."""
    page = (await client.get("/")).text
    assert "<h2>Drift</h2>" in page
    assert "input_&lt;x&gt;" in page
    assert "input_y" not in page
    control.drifts.clear()
    assert "<h2>Drift</h2>" not in (await client.get("/")).text


async def test_the_gauges_are_of_the_columns_that_matter_most(
    client: httpx2.AsyncClient, control: FakeControl
) -> None:
    """A table of ten thousand columns does not become ten thousand series."""
    text = (await client.get("/metrics")).text
    assert 'hotswap_drift_distance{column="input_<x>",model="m"} 0.4' in text
    assert 'hotswap_drift_alarmed{column="input_<x>",model="m"} 1.0' in text
    assert 'hotswap_drift_alarmed{column="input_y",model="m"} 0.0' in text
    assert 'hotswap_drift_distance{column="input_y"' not in text
    many = tuple(column(f"input_x{at}", 0.01) for at in range(1000))
    control.drifts["m"] = DriftView("m", "watching", "", 0.1, (), many)
    text = (await client.get("/metrics")).text
    assert text.count("hotswap_drift_distance{") == MOST
