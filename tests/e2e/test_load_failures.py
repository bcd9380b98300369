"""Versions that cannot be loaded: the reason reaches the user, and what served serves on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import tricks
from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load
from tests.e2e.tricks import write_trick

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Model ``m`` serves v1; each test adds a version of its own."""
    root = tmp_path_factory.mktemp("load-failures")
    write_trick(root / "models", "m", "v1")
    with Server(root / "models", root / "state", workers=2) as server:
        yield server


def refused(server: Server, version: str, status: int, load: str = "pass", **more: str) -> str:
    """The sentence with which a switch to a new, bad version is refused under load."""
    assert server.models is not None
    write_trick(server.models, "m", version, load=load, **more)  # type: ignore[arg-type]
    wait_until(lambda: server.has_version("m", version), f"{version} to be registered")
    before = set(server.host_pids())
    with Load(server.data_port, "m", 8) as traffic:
        answer = server.switch("m", version)
        traffic.wait(50)
    traffic.expect_no_failure()
    assert {sent.version for sent in traffic.sent} == {"v1"}
    assert answer.status == status, answer
    view = server.version("m", version)
    assert (view["state"], view["role"], view["weight"]) == ("UNAVAILABLE", "", 0.0)
    assert view["reason"] in answer.error or answer.error in view["reason"]
    assert server.model("m")["active"] == "v1"
    assert set(server.host_pids()) == before, "the failed version's process is still there"
    for shown in (answer.error, view["reason"]):
        assert str(server.state_dir) not in shown
        assert str(server.models) not in shown
        assert not re.search(r"(?<![\w…])/(?:\w[\w.-]*/)+", shown), shown
        assert "Traceback" not in shown
        assert "\n" not in shown
    operation = server.control("GET", "/api/v1/operations").json["operations"][0]
    assert (operation["state"], operation["version"]) == ("failed", version)
    assert operation["reason"]
    return answer.error


def test_load_that_raises(server: Server) -> None:
    """The model's own exception, type and message, is the reason; its path is its name."""
    error = refused(server, "v10", 409, tricks.RAISES)
    assert "RuntimeError: no weights in m/v10/weights.bin" in error


def test_load_that_aborts(server: Server) -> None:
    """A process that aborts while it loads is told as that."""
    assert "killed by SIGABRT" in refused(server, "v11", 409, tricks.ABORTS)


def test_load_that_exits(server: Server) -> None:
    """A process that just ends while it loads is told as that."""
    assert "exit status 3" in refused(server, "v12", 409, tricks.EXITS)


def test_load_that_segfaults(server: Server) -> None:
    """So is one that a fault kills."""
    assert "killed by SIGSEGV" in refused(server, "v13", 409, tricks.SEGFAULTS)


def test_load_that_hangs(server: Server) -> None:
    """A load past its deadline is ended, and the limit is named."""
    error = refused(server, "v14", 409, tricks.HANGS, settings="load_seconds: 1.5\n")
    assert "longer than 1.5 s" in error


def test_load_that_eats_memory(server: Server) -> None:
    """A load that takes more than ``memory_mb`` is ended; the whole machine is not taken."""
    error = refused(server, "v15", 507, tricks.EATS, settings="memory_mb: 128\n")
    assert "128 MiB" in error or "MemoryError" in error


def test_other_inputs(server: Server) -> None:
    """A version that takes other inputs than the model's is refused, unless forced."""
    other = "signature: {inputs: [{name: x, datatype: FP64, shape: [-1, 3]}]}\n"
    error = refused(server, "v16", 409, signature=other)
    assert "[-1, 3]" in error or "3" in error


def test_outputs_that_do_not_fit_the_rows(server: Server) -> None:
    """A version that answers its samples with the wrong number of rows is refused."""
    samples = f"samples: [[{tricks.WRONG_ROWS}, 1], [1, 2]]\n"
    assert "rows" in refused(server, "v17", 409, settings=samples)


def test_outputs_that_are_not_finite(server: Server) -> None:
    """A version that must answer finite numbers and does not is refused."""
    samples = f"finite: true\nsamples: [[{tricks.NOT_A_NUMBER}, 1], [1, 2]]\n"
    assert "finite" in refused(server, "v18", 409, settings=samples)


def test_samples_that_make_it_raise(server: Server) -> None:
    """A version that raises on its own samples is refused with what it raised, without the path."""
    samples = f"samples: [[{tricks.RAISE}, 1]]\n"
    error = refused(server, "v19", 409, settings=samples)
    assert "ValueError: cannot read" in error
    assert "/srv/secret" not in error


def test_version_that_is_unavailable_is_told_so(server: Server) -> None:
    """A pinned request to a version that cannot be loaded says why, and the index does too."""
    refused(server, "v20", 409, tricks.RAISES)
    answer = server.predict("m", version="v20")
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "RuntimeError: no weights in m/v20/weights.bin" in answer.error
    rows = server.data("POST", "/v2/repository/index", {}).json
    (row,) = [row for row in rows if row["version"] == "v20"]
    assert (row["state"], row["name"]) == ("UNAVAILABLE", "m")
    assert "no weights" in row["reason"]
    assert server.data("GET", "/v2/models/m/versions/v20/ready").status == 503


def test_failure_is_tried_again_on_demand(server: Server, tmp_path: Path) -> None:
    """A version whose cause of failure is gone loads at the next switch; the reason is gone too."""
    marker = tmp_path / "weights"
    load = f"open({str(marker)!r}).close()"
    assert "FileNotFoundError" in refused(server, "v21", 409, load)
    marker.touch()
    assert server.switch("m", "v21").status == 200
    assert server.version("m", "v21")["reason"] == ""
    assert server.switch("m", "v1").status == 200
