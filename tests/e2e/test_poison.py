"""Requests that crash, hang or confuse a model cost only themselves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e import tricks
from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load
from tests.e2e.tricks import write_trick

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SETTINGS = "hang_seconds: 2\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``one`` has one instance, ``two`` has two, ``impure`` may not be asked twice."""
    root = tmp_path_factory.mktemp("poison")
    write_trick(root / "models", "one", "v1", settings=SETTINGS)
    write_trick(root / "models", "two", "v1", settings=SETTINGS + "instances: 2\n")
    write_trick(root / "models", "impure", "v1", settings=SETTINGS + "pure: false\n")
    write_trick(root / "models", "fat", "v1", settings="memory_mb: 200\n")
    write_trick(root / "models", "strict", "v1", settings="finite: true\n")
    with Server(root / "models", root / "state", workers=2) as server:
        wait_until(
            lambda: all(
                server.version(model, "v1")["state"] == "READY"
                for model in ("one", "two", "impure", "fat", "strict")
            ),
            "every model to be warm",
        )
        yield server


def settle(server: Server, model: str, instances: int) -> None:
    """Until the model has all its instances again."""
    wait_until(
        lambda: server.version(model, "v1")["instances"] == instances, "the instances to be back"
    )


@pytest.mark.parametrize(("model", "instances"), [("one", 1), ("two", 2)])
def test_a_request_that_crashes_every_host(server: Server, model: str, instances: int) -> None:
    """It gets its own 500; eight connections beside it see no failure."""
    with Load(server.data_port, model, 8) as load:
        answer = server.predict(model, (tricks.ABORT, 0.0))
        assert answer.status == 500, answer
        assert "process died" in answer.error
        load.wait(50)
    load.expect_no_failure()
    settle(server, model, instances)


@pytest.mark.parametrize(("model", "instances"), [("one", 1), ("two", 2)])
def test_several_at_once(server: Server, model: str, instances: int) -> None:
    """Four such requests at once: four 500s, and nobody else's."""
    with Load(server.data_port, model, 8) as load, ThreadPoolExecutor(4) as pool:
        rows = [(tricks.ABORT, float(number)) for number in range(4)]
        answers = list(pool.map(lambda row: server.predict(model, row), rows))
        assert [answer.status for answer in answers] == [500] * 4, answers
        load.wait(50)
    load.expect_no_failure()
    settle(server, model, instances)


@pytest.mark.parametrize(("model", "instances"), [("one", 1), ("two", 2)])
def test_a_request_that_hangs(server: Server, model: str, instances: int) -> None:
    """A call past ``hang_seconds`` ends its host; the request fails, the others wait and succeed."""
    with Load(server.data_port, model, 8) as load:
        answer = server.predict(model, (tricks.HANG, 0.0))
        assert answer.status in (500, 504), answer
        load.wait(50)
    load.expect_no_failure()
    settle(server, model, instances)


def test_an_impure_model_is_not_asked_twice(server: Server) -> None:
    """With ``pure: false`` a lost request is not sent again: it fails at once."""
    settle(server, "impure", 1)
    (before,) = server.host_pids("impure")
    answer = server.predict("impure", (tricks.ABORT, 0.0))
    assert answer.status == 500
    settle(server, "impure", 1)
    assert server.predict("impure").status == 200
    (after,) = server.host_pids("impure")
    assert after != before
    died = [
        line
        for line in server.log_lines()
        if line.get("event") == "a host ended and is started again" and line["model"] == "impure"
    ]
    assert len(died) == 1, died


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((tricks.RAISE, 0.0), "ValueError: cannot read"),
        ((tricks.WRONG_ROWS, 0.0), "rows"),
    ],
)
def test_a_request_that_fails_in_a_batch(
    server: Server, row: tuple[float, float], said: str
) -> None:
    """What raises or miscounts fails alone, with its reason and no path, whatever it came with."""
    with Load(server.data_port, "one", 8, pause=0) as load, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: server.predict("one", row), range(12)))
        load.wait(100)
    load.expect_no_failure()
    for answer in answers:
        assert answer.status == 500
        assert said in answer.error
        assert "/srv/secret" not in answer.error
        assert answer.headers["x-hotswap-version"] == "v1"


def test_not_a_number(server: Server) -> None:
    """A NaN is null where it is allowed, and a failure where outputs must be finite."""
    answer = server.predict("one", (tricks.NOT_A_NUMBER, 0.0))
    assert (answer.status, answer.json["prediction"]) == (200, None)
    with Load(server.data_port, "strict", 8, pause=0) as load:
        refused = server.predict("strict", (tricks.NOT_A_NUMBER, 0.0))
        load.wait(50)
    load.expect_no_failure()
    assert refused.status == 500
    assert "not finite" in refused.error


def test_a_leak(server: Server) -> None:
    """A host that grows past ``memory_mb`` is replaced; nobody else's request fails."""
    (before,) = server.host_pids("fat")
    with Load(server.data_port, "fat", 4) as load:
        for _ in range(30):
            answer = server.predict("fat", (tricks.LEAK, 16.0))
            assert answer.status in (200, 500, 507), answer
            if answer.status != 200 or server.host_pids("fat") != [before]:
                break
        wait_until(lambda: [pid for pid in server.host_pids("fat") if pid != before], "a new host")
        load.wait(50)
    load.expect_no_failure()
    settle(server, "fat", 1)
