"""What was answered is recorded: once, whatever is killed, and without ever being in the way."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from hotswap.records import dataset
from hotswap.records.privacy import Privacy
from hotswap.records.recording import Recording
from tests.e2e.conftest import Serve
from tests.e2e.harness import Server, wait_until
from tests.e2e.load import Load
from tests.e2e.tricks import write_trick

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def model(folder: Path) -> str:
    """Model ``m`` with v1."""
    write_trick(folder, "m", "v1")
    return "m"


def records(server: Server) -> Path:
    return server.state_dir / "records"


def ask(server: Server, sql: str) -> list[tuple[Any, ...]]:
    with dataset.open(records(server), "m") as opened:
        assert opened.skipped == []
        return opened.sql.execute(sql).fetchall()


def recorded(server: Server) -> Counter[str]:
    """How often each request is recorded, by id."""
    return Counter(row[0] for row in ask(server, "SELECT request_id FROM records"))


def answered(load: Load) -> set[str]:
    return {sent.id for sent in load.sent if sent.status == 200}


def info(server: Server) -> dict[str, Any]:
    told: dict[str, Any] = server.control("GET", "/api/v1/info").json["records"]
    return told


def expect_all(server: Server, load: Load) -> None:
    """Every answered request is recorded within a moment, and none twice."""
    ids = answered(load)
    assert len(ids) == sum(sent.status == 200 for sent in load.sent)
    wait_until(lambda: ids <= set(recorded(server)), "every answered request to be recorded")
    assert max(recorded(server).values()) == 1


def test_predictions_are_recorded_and_can_be_read_by_anyone(serve: Serve, model: str) -> None:
    """Live segments with pyarrow, compacted files with DuckDB and pandas; labels are joined."""
    server = serve("--records-hash=x1")
    answers = [server.predict("m", (float(n), 2.0)) for n in range(5)]
    ids = [answer.headers["x-request-id"] for answer in answers]
    labels = [{"request_id": name, "label": n % 2} for n, name in enumerate(ids)]
    assert server.data("POST", "/feedback", labels).json == {"accepted": 5}
    assert server.data("POST", "/feedback", labels[0]).status == 202
    wait_until(lambda: len(ask(server, "SELECT * FROM labelled")) == 5, "labels to be joined")
    sql = "SELECT request_id, input_x0, output_predict, label FROM labelled ORDER BY time"
    rows = ask(server, sql)
    assert [row[0] for row in rows] == ids
    assert [(row[1], row[3]) for row in rows] == [(float(n), float(n % 2)) for n in range(5)]
    told = info(server)
    assert (told["on"], told["root"], told["location"]) == (True, str(records(server)), None)
    assert (told["problem"], told["dropped"], told["failed"]) == ("", 0, 0)
    metrics = server.control("GET", "/metrics").body.decode()
    assert "hotswap_records_total 5.0" in metrics
    assert "hotswap_labels_total 6.0" in metrics
    server.stop()

    (segment,) = (records(server) / "segments" / "m").iterdir()
    with pa.OSFile(str(segment)) as source, pa.ipc.open_stream(source) as reader:
        live = reader.read_all().sort_by("time")
    assert live["request_id"].to_pylist() == ids
    assert live.schema.field("time").type == pa.timestamp("us", "UTC")
    assert live.schema.field("input_x1").type == pa.uint64()

    compacting = Recording(
        server.state_dir / "no rings", records(server), "", Privacy(), None, 30.0, 1 << 40, print
    )
    compacting.drain(time.time())
    compacting.compact(time.time())
    assert not list((records(server) / "segments" / "m").iterdir())
    files = f"{records(server)}/days/model=m/*/*.parquet"
    with duckdb.connect() as sql_:
        found = sql_.sql(
            f"SELECT request_id FROM read_parquet('{files}', union_by_name = true) ORDER BY time"
        ).fetchall()
    assert [row[0] for row in found] == ids
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(records(server) / "days" / "model=m").sort_values("time")
    assert list(frame["request_id"]) == ids
    assert list(frame["version"]) == ["v1"] * 5


def test_the_recorder_may_be_killed(serve: Serve, model: str) -> None:
    """Under load, again and again: nothing is lost, for the rings hold it, and nothing is twice."""
    server = serve()
    with Load(server.data_port, "m", 8) as load:
        for _ in range(3):
            (before,) = wait_until(server.recorder_pids, "a recorder")
            os.kill(before, signal.SIGKILL)
            load.wait(100)
            wait_until(lambda: set(server.recorder_pids()) - {before}, "a new one")  # noqa: B023
            load.wait(100)
    load.expect_no_failure()
    expect_all(server, load)
    assert info(server)["dropped"] == 0


def test_a_worker_may_be_killed(serve: Serve, model: str) -> None:
    """What it answered in its last moments may be missing; nothing else, and nothing is twice."""
    server = serve(workers=2)
    with Load(server.data_port, "m", 8) as load:
        load.wait(200)
        (before, _) = server.worker_pids()
        killed = time.monotonic()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: len(set(server.worker_pids()) - {before}) == 2, "a new worker")
        load.wait(300)
    ids = {
        sent.id for sent in load.sent if sent.status == 200 and not killed - 1 < sent.end < killed
    }
    wait_until(lambda: ids <= set(recorded(server)), "all but those to be recorded")
    assert max(recorded(server).values()) == 1


@pytest.mark.parametrize("how", ["alone", "shadowed"])
def test_an_ordered_end_loses_nothing(serve: Serve, folder: Path, how: str) -> None:
    """Every request that was answered is there, those too whose shadow was still awaited."""
    write_trick(folder, "m", "v1", predict="time.sleep(0.3)")
    write_trick(folder, "m", "v2")
    server = serve()
    if how == "shadowed":
        config = {"min_requests": 100_000}
        body = {"model": "m", "version": "v1", "strategy": "shadow", "config": config}
        answer = server.control("POST", "/api/v1/rollouts", body)
        assert answer.status == 201, answer
    with Load(server.data_port, "m", 8) as load:
        load.wait(200)
        if how == "shadowed":
            sql = "SELECT 1 FROM records WHERE other_version = 'v1' LIMIT 1"
            wait_until(lambda: ask(server, sql), "a shadow's answer")
        process = server.process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: process.poll() is not None, "its end")
    found = recorded(server)
    assert answered(load) <= set(found)
    assert max(found.values()) == 1


def test_a_reload_loses_nothing(serve: Serve, model: str) -> None:
    """Two workers in one slot, each with a ring of its own; twice over."""
    server = serve(workers=1)
    with Load(server.data_port, "m", 8) as load:
        for _ in range(2):
            before = server.worker_pids()
            os.kill(server.pid, signal.SIGHUP)
            wait_until(lambda: not set(before) & set(server.worker_pids()), "the old to be gone")  # noqa: B023
            load.wait(100)
    load.expect_no_failure()
    expect_all(server, load)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Two megabytes for all records."""
    place = tmp_path / "state" / "records"
    place.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_full_disk_is_counted_and_left_behind(serve: Serve, model: str, small_disk: Path) -> None:
    """Predictions go on; what cannot be written is counted; with room again it goes on."""
    server = serve()
    with Load(server.data_port, "m", 4) as load:
        wait_until(lambda: recorded(server), "the first records")
        filler = small_disk / "filler"
        with open(filler, "wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError as full:
                assert full.errno == 28  # noqa: PT017 - the disk is full, as it should be
        wait_until(lambda: info(server)["failed"], "records that fail")
        assert "No space left on device" in info(server)["problem"]
        load.wait(100)
        filler.unlink()
        wait_until(lambda: not info(server)["problem"], "records to be written again")
        at = len(recorded(server))
        wait_until(lambda: len(recorded(server)) > at, "more of them")
        load.wait(50)
    load.expect_no_failure()
    assert max(recorded(server).values()) == 1


def test_a_folder_that_cannot_be_written_is_tried_again(
    serve: Serve, model: str, tmp_path: Path
) -> None:
    """From the start on: the server serves, says so, and records once it can."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "records").write_bytes(b"in the way")
    server = serve()
    assert server.predict("m").status == 200
    wait_until(lambda: info(server)["failed"], "a record that fails")
    assert info(server)["problem"]
    (tmp_path / "state" / "records").unlink()
    answer = server.predict("m")
    wait_until(lambda: recorded(server)[answer.headers["x-request-id"]], "a record")
    assert info(server)["problem"] == ""


def test_records_that_are_off(serve: Serve, model: str) -> None:
    """No recorder, no folder, no labels; and it is said what to do."""
    server = serve("--records=off")
    assert server.predict("m").status == 200
    assert server.recorder_pids() == []
    assert not records(server).exists()
    assert info(server) == {"on": False}
    answer = server.data("POST", "/feedback", {"request_id": "a", "label": 1})
    assert answer.status == 404
    assert "--records on" in answer.error
    assert b"hotswap_records_total" not in server.control("GET", "/metrics").body


def test_what_is_redacted_is_nowhere_in_the_state_directory(serve: Serve, model: str) -> None:
    """Nor what is hashed; the other columns are."""
    server = serve("--records-redact=x0")
    secret, other = 98765.4321, 12345.6789
    ids = [server.predict("m", (secret, other)).headers["x-request-id"] for _ in range(3)]
    wait_until(lambda: set(ids) <= set(recorded(server)), "the records")
    server.stop()
    files = [path for path in server.state_dir.rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    for number, there in ((secret, False), (other, True)):
        packed = [struct.pack("<d", number), struct.pack("<f", number)]
        assert any(each in content for each in packed) == there
