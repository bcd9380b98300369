"""Versions come, are loaded on demand, and go, while a server runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e import tricks
from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load
from tests.e2e.tricks import write_trick

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Model ``m`` serves v1; each test uses models or versions of its own."""
    root = tmp_path_factory.mktemp("versions")
    write_trick(root / "models", "m", "v1")
    with Server(root / "models", root / "state", "--settle-seconds=1", workers=2) as server:
        yield server


def add(server: Server, model: str, version: str, **more: str) -> None:
    """Drop a version into the models folder and wait until it is registered."""
    assert server.models is not None
    write_trick(server.models, model, version, **more)  # type: ignore[arg-type]
    wait_until(lambda: server.has_version(model, version), f"{model}/{version}")


def test_new_version_is_registered_not_activated(server: Server) -> None:
    """A version that appears is known, cold and without traffic, and so is a new model."""
    add(server, "m", "v2")
    view = server.version("m", "v2")
    assert (view["state"], view["role"], view["weight"]) == ("REGISTERED", "", 0.0)
    assert server.predict("m").headers["x-hotswap-version"] == "v1"
    add(server, "fresh", "v1")
    assert server.model("fresh")["active"] is None
    answer = server.predict("fresh")
    assert answer.status == 503
    assert "no active version" in answer.error
    assert "retry-after" in answer.headers


def test_folder_being_written(server: Server) -> None:
    """A version whose files still change is not taken, and then it is taken whole."""
    assert server.models is not None
    whole = write_trick(server.models.parent / "elsewhere", "m", "v7")
    growing = server.models / "m" / "v7"
    growing.mkdir()
    content = (whole / "model.py").read_text()
    (growing / "version.yaml").write_text((whole / "version.yaml").read_text())
    with open(growing / "model.py", "w") as file:
        for piece in range(12):
            size = len(content) // 12
            file.write(content[piece * size : (piece + 1) * size if piece < 11 else None])
            file.flush()
            polled(server)
            if piece < 11:
                assert not server.has_version("m", "v7"), f"taken with {piece + 1} of 12 pieces"
    wait_until(lambda: server.has_version("m", "v7"), "the version, once it is whole")
    assert server.switch("m", "v7").status == 200
    assert server.predict("m").json["prediction"] == 7.0
    assert server.switch("m", "v1").status == 200


def polled(server: Server) -> None:
    """Long enough for the folder to be looked at again (every 0.2 s), not for it to settle."""
    import time

    time.sleep(0.25)


def test_pinned_request_to_a_cold_version(server: Server) -> None:
    """It is told to come back, the version loads, and then it is answered; weights do not move."""
    add(server, "m", "v3", load=tricks.takes(1.0))
    wait_until(
        lambda: server.data("GET", "/v2/models/m/versions/v3").status == 200, "the workers to know"
    )
    first = server.predict("m", version="v3")
    assert first.status == 503
    assert int(first.headers["retry-after"]) >= 1
    with ThreadPoolExecutor(8) as pool:  # many ask; it is loaded once
        list(pool.map(lambda _: server.predict("m", version="v3"), range(16)))
    wait_until(lambda: server.predict("m", version="v3").status == 200, "v3 to answer")
    answer = server.predict("m", version="v3")
    assert (answer.headers["x-hotswap-version"], answer.json["prediction"]) == ("v3", 3.0)
    assert server.predict("m").headers["x-hotswap-version"] == "v1"
    wait_until(lambda: len(server.host_pids("m", "v3")) == 1, "one host of v3")
    hosts = [spec for spec in server.last().hosts if spec.version == "v3"]
    assert len(hosts) == 1, hosts
    view = server.version("m", "v3")
    assert (view["state"], view["role"], view["weight"]) == ("READY", "resident", 0.0)


def test_load_unload_and_clear_cache(server: Server) -> None:
    """A version can be warmed without weight and let go; what has weight stays."""
    add(server, "m", "v4")
    loaded = server.control("POST", "/api/v1/models/m/versions/v4/load")
    assert loaded.status == 200, loaded
    assert loaded.json["state"] == "done"
    assert server.version("m", "v4")["state"] == "READY"
    (pid,) = wait_until(lambda: server.host_pids("m", "v4"), "its process to be noted")
    assert server.control("POST", "/api/v1/models/m/versions/v4/unload").status == 200
    wait_until(lambda: server.version("m", "v4")["state"] == "REGISTERED", "v4 to be cold")
    wait_until(lambda: pid not in server.host_pids(), "its process to end")
    refused = server.control("POST", "/api/v1/models/m/versions/v1/unload")
    assert refused.status == 409
    assert "active" in refused.error
    server.control("POST", "/api/v1/models/m/versions/v4/load")
    assert server.control("POST", "/admin/clear-cache").status == 200
    wait_until(lambda: server.version("m", "v4")["state"] == "REGISTERED", "v4 to be cold again")
    assert server.version("m", "v1")["state"] == "READY"


def test_removing(server: Server) -> None:
    """What has weight or is the rollback target cannot be removed; what else is, is gone for good."""
    for version in ("v1", "v2", "v3"):
        add(server, "gone", version)
    assert server.switch("gone", "v1").status == 200
    assert server.switch("gone", "v2").status == 200
    path = "/api/v1/models/gone/versions/{}"
    active = server.control("DELETE", path.format("v2"))
    assert (active.status, "active" in active.error) == (409, True)
    target = server.control("DELETE", path.format("v1"))
    assert (target.status, "rollback" in target.error) == (409, True)
    model = server.control("DELETE", "/api/v1/models/gone")
    assert model.status == 409
    digest = server.version("gone", "v3")["digest"].removeprefix("sha256:")
    copy = server.state_dir / "artifacts" / digest
    assert copy.is_dir()
    assert server.control("DELETE", path.format("v3")).status in (200, 204)
    assert not server.has_version("gone", "v3")
    assert server.predict("gone", version="v3").status == 404
    assert server.control("DELETE", path.format("v3")).status == 404
    assert server.switch("gone", "v3").status == 404
    wait_until(lambda: not copy.exists(), "the copy of its artifact to be removed")
    again = server.control(
        "POST", "/api/v1/models/gone/versions",
        {"uri": str(server.models / "gone" / "v3"), "version": "v3"},  # type: ignore[operator]
    )  # fmt: skip
    assert again.status == 409, again


def test_registering_through_the_api(server: Server) -> None:
    """A folder within the allowed roots is copied and hashed; later changes to it change nothing."""
    assert server.models is not None
    source = write_trick(server.models.parent / "models", "staging", "v9")
    body = {"uri": str(source), "version": "v9", "changelog": "better", "metadata": {"auc": 0.9}}
    made = server.control("POST", "/api/v1/models/api/versions", body)
    assert made.status == 201, made
    assert made.json["digest"].startswith("sha256:")
    assert (made.json["changelog"], made.json["metadata"]) == ("better", {"auc": 0.9})
    shutil.rmtree(source)
    assert server.switch("api", "v9").status == 200
    assert server.predict("api").json["prediction"] == 9.0
    outside = server.control("POST", "/api/v1/models/api/versions", {"uri": "/etc"})
    assert outside.status in (400, 403), outside
    assert "--allow-root" in outside.error


def test_changed_artifact_is_not_loaded(server: Server) -> None:
    """A copy that was tampered with is refused at the next load: what is served is what was hashed."""
    add(server, "m", "v5")
    digest = server.version("m", "v5")["digest"].removeprefix("sha256:")
    file = server.state_dir / "artifacts" / digest / "model.py"
    file.chmod(0o644)
    file.write_text(file.read_text() + "\n# changed\n")
    with Load(server.data_port, "m", 4) as load:
        answer = server.switch("m", "v5")
        assert answer.status == 409, answer
        assert "model.py" in answer.error
        load.wait(20)
    load.expect_no_failure()
    assert server.predict("m").headers["x-hotswap-version"] == "v1"


def test_changed_folder_changes_nothing(server: Server) -> None:
    """What is served is what was registered, whatever becomes of the folder that it came from."""
    add(server, "m", "v6")
    assert server.models is not None
    before = server.version("m", "v6")["digest"]
    file = server.models / "m" / "v6" / "model.py"
    file.write_text(file.read_text().replace("6.0", "66.0"))
    polled(server)
    assert server.version("m", "v6")["digest"] == before
    assert server.switch("m", "v6").status == 200
    assert server.predict("m").json["prediction"] == 6.0
    assert server.switch("m", "v1").status == 200
