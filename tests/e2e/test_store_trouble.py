"""A store that is corrupt, locked, full or gone: a clear sentence, and serving goes on."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from hotswap.core.lifecycle import Intent, ModelDocument, decided
from hotswap.stores.sqlite import SqliteStore
from tests.e2e.conftest import Serve
from tests.e2e.harness import Response, Server, wait_until
from tests.e2e.load import Load
from tests.e2e.tricks import write_trick

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture
def server(folder: Path, serve: Serve) -> Server:
    """Model ``m``: v1 is active and v2 warm."""
    write_trick(folder, "m", "v1")
    write_trick(folder, "m", "v2")
    server = serve(workers=2)
    assert server.switch("m", "v1").status == 200
    return server


def database(server: Server) -> Path:
    """The store's file."""
    return server.state_dir / "hotswap.db"


def expect_trouble(answer: Response, *words: str) -> None:
    """An answer that says what is wrong with the store, in one sentence."""
    assert answer.status in (409, 503), answer
    assert any(word in answer.error for word in words), answer.error
    assert "Traceback" not in answer.error
    assert "\n" not in answer.error
    assert "sqlalche" not in answer.error.lower()


def refusal(server: Server) -> Response:
    """A switch's answer once control has tried to open the store."""

    def tried() -> Response | None:
        answer = server.switch("m", "v2")
        return None if "not open yet" in answer.error else answer

    return wait_until(tried, "control to have tried to open the store")


def expect_one_line(server: Server, since: int) -> None:
    """The trouble is told in the log, without a traceback, and not over and over."""
    text = server.log()[since:]
    assert "Traceback" not in text
    errors = [line for line in server.log_lines() if line.get("level") == "error"]
    assert errors


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes to the database."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_locked_while_running(server: Server) -> None:
    """Switching is refused with the reason, rolling back is not; predictions never notice."""
    since = len(server.log())
    with Load(server.data_port, "m", 8) as load:
        with locked(database(server)):
            expect_trouble(server.switch("m", "v2"), "locked", "in use")
            assert server.predict("m").headers["x-hotswap-version"] == "v1"
            assert server.control("GET", "/api/v1/models").status == 200
            with ThreadPoolExecutor(1) as pool:
                back = pool.submit(server.control, "POST", "/api/v1/models/m/rollback", {})
                wait_until(lambda: served(server) == "v2", "the rollback")
                assert not back.done(), "the rollback waited for the store"
            assert (back.result().status, back.result().json["to"]) == (200, "v2")
            assert server.predict("m").headers["x-hotswap-version"] == "v2"
        assert wait_until(lambda: server.switch("m", "v1").status == 200, "a switch to work again")
        load.wait(50)
    load.expect_no_failure()
    expect_one_line(server, since)
    # What could not be saved at the time is saved by now.
    assert server.stop() == 0
    server.start()
    assert server.predict("m").headers["x-hotswap-version"] == "v1"


def test_rollback_while_locked_survives_a_restart(server: Server) -> None:
    """A rollback that the store could not take at once is written as soon as it can be."""
    with locked(database(server)):
        back = server.control("POST", "/api/v1/models/m/rollback", {})
        assert (back.status, back.json["to"]) == (200, "v2")
    wait_until(lambda: active_in_store(server) == "v2", "the rollback to be written")
    server.stop()
    server.start()
    assert server.predict("m").headers["x-hotswap-version"] == "v2"
    server.wait_control()
    assert server.model("m")["active"] == "v2"


def test_locked_at_the_start(server: Server) -> None:
    """It serves what it served; control says why it cannot help, and can once the lock is gone."""
    server.stop()
    with locked(database(server)):
        server.start()
        assert server.predict("m").headers["x-hotswap-version"] == "v1"
        answer = refusal(server)
        expect_trouble(answer, "locked", "in use")
    server.wait_control()
    assert server.switch("m", "v2").status == 200


def test_corrupt_at_the_start(server: Server) -> None:
    """A broken file is named, never overwritten; what was served is, and a repair is noticed."""
    server.stop()
    good = database(server).read_bytes()
    for name in ("hotswap.db-wal", "hotswap.db-shm"):
        (server.state_dir / name).unlink(missing_ok=True)
    database(server).write_bytes(b"this is no database " * 4096)
    since = len(server.log())
    server.start()
    with Load(server.data_port, "m", 8) as load:
        answer = refusal(server)
        expect_trouble(answer, "not a hotswap store")
        assert server.control("GET", "/healthz").status == 200
        load.wait(50)
    load.expect_no_failure()
    assert {sent.version for sent in load.sent} == {"v1"}
    expect_one_line(server, since)
    assert database(server).read_bytes().startswith(b"this is no database")
    replacement = database(server).with_name("good")
    replacement.write_bytes(good)
    replacement.replace(database(server))
    server.wait_control()
    assert server.switch("m", "v2").status == 200


def test_replaced_while_running(server: Server) -> None:
    """A file that breaks under control: switches are refused with a reason, predictions go on."""
    good = database(server).with_name("good")
    with contextlib.closing(sqlite3.connect(database(server))) as running:
        running.execute("VACUUM INTO ?", (str(good),))
    since = len(server.log())
    with Load(server.data_port, "m", 8) as load:
        bad = database(server).with_name("bad")
        bad.write_bytes(b"\xff" * 8192)
        for name in ("hotswap.db-wal", "hotswap.db-shm"):
            (server.state_dir / name).unlink(missing_ok=True)
        bad.replace(database(server))
        expect_trouble(server.switch("m", "v2"), "not a hotswap store", "damaged")
        assert server.model("m")["active"] == "v1"
        for name in ("hotswap.db-wal", "hotswap.db-shm"):
            (server.state_dir / name).unlink(missing_ok=True)
        good.replace(database(server))
        wait_until(lambda: server.switch("m", "v1").status == 200, "the repaired store to be used")
        load.wait(50)
    load.expect_no_failure()
    assert {sent.version for sent in load.sent} == {"v1"}
    assert "Traceback" not in server.log()[since:]


def test_full_disk_for_control(server: Server) -> None:
    """Nothing can be written: switches are refused with the reason; later they work again."""
    (control,) = server.control_pids()
    with Load(server.data_port, "m", 8) as load:
        before = resource.prlimit(control, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        try:
            answer = server.switch("m", "v2")
            expect_trouble(answer, "full", "cannot be written", "disk", "cannot")
            assert server.predict("m").headers["x-hotswap-version"] == "v1"
            assert server.control("GET", "/api/v1/models/m").status == 200
        finally:
            resource.prlimit(control, resource.RLIMIT_FSIZE, before)
        assert server.switch("m", "v2").status == 200
        load.wait(50)
    load.expect_no_failure()
    assert server.control_pids() == [control]


def test_full_disk_for_the_supervisor(server: Server) -> None:
    """Where even a table cannot be written a flip is refused, and the old version serves on."""
    with Load(server.data_port, "m", 8) as load:
        before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        try:
            answer = server.switch("m", "v2")
            assert answer.status == 503, answer
            assert "table" in answer.error
            assert server.model("m")["active"] == "v1"
            assert server.predict("m").headers["x-hotswap-version"] == "v1"
        finally:
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)
        assert server.switch("m", "v2").status == 200
        load.wait(50)
    load.expect_no_failure()


def test_unfinished_flip_is_rolled_forward(server: Server) -> None:
    """A flip that was decided and not carried out before everything died is carried out."""
    server.kill()
    document = read_document(database(server))
    assert document.active == "v1"
    intent = Intent("v2", "0123456789ab", "switch", document.revision + 1)
    write_document(database(server), decided(document, intent))
    server.start()
    server.wait_control()
    wait_until(lambda: server.model("m")["active"] == "v2", "the flip to be rolled forward")
    assert server.predict("m").headers["x-hotswap-version"] == "v2"
    assert read_document(database(server)).intent is None


def test_unfinished_flip_that_cannot_be_finished(server: Server) -> None:
    """If its version does not load any more, what was active stays."""
    server.kill()
    document = read_document(database(server))
    artifact = next(spec.artifact for spec in server.last().hosts if spec.version == "v2")
    intent = Intent("v2", "0123456789ab", "switch", document.revision + 1)
    write_document(database(server), decided(document, intent))
    (Path(artifact.folder) / "model.py").write_text("changed")
    server.start()
    server.wait_control()
    wait_until(lambda: read_document(database(server)).intent is None, "the intent to be given up")
    assert server.model("m")["active"] == "v1"
    assert server.predict("m").headers["x-hotswap-version"] == "v1"


def test_killed_right_after_a_switch(server: Server) -> None:
    """Once a switch has returned, no restart answers by the version before, whenever it comes."""
    for version in ("v2", "v1", "v2"):
        assert server.switch("m", version).status == 200
        server.kill()
        server.start()
        assert {served(server) for _ in range(20)} == {version}
        server.wait_control()
        wait_until(lambda: server.model("m")["active"] == version, "control to agree")  # noqa: B023


def test_old_notes_of_the_supervisor(server: Server) -> None:
    """The store wins over older notes of what was served (a power cut may lose the newest)."""
    notes = server.state_dir / "last.msgpack"
    wait_until(lambda: server.last().tables[0].stable == "v1", "the notes")
    old = notes.read_bytes()
    assert server.switch("m", "v2").status == 200
    server.kill()
    notes.write_bytes(old)
    server.start()
    server.wait_control()
    wait_until(lambda: served(server) == "v2", "the active version to be served")
    assert server.model("m")["active"] == "v2"


def test_rollback_that_was_never_saved(server: Server) -> None:
    """What was rolled back to stays, although control died before the store could take it."""
    (control,) = server.control_pids()
    with locked(database(server)):
        back = server.control("POST", "/api/v1/models/m/rollback", {})
        assert (back.status, back.json["to"]) == (200, "v2")
        signal.pidfd_send_signal(_pidfd(control), signal.SIGKILL)
        wait_until(lambda: server.control_pids() not in ([], [control]), "a new control")
        assert served(server) == "v2"
    server.wait_control()
    wait_until(lambda: server.model("m")["active"] == "v2", "control to know what is served")
    assert served(server) == "v2"
    wait_until(lambda: active_in_store(server) == "v2", "the rollback to be written")


def test_killed_while_switching(server: Server) -> None:
    """Control killed in the middle of switches: what the store says is what is served, again."""
    with Load(server.data_port, "m", 8) as load:
        for number in range(4):
            (control,) = server.control_pids()
            with contextlib.suppress(OSError):
                server.switch("m", ("v2", "v1")[number % 2])
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(_pidfd(control), signal.SIGKILL)
            wait_until(lambda: server.control_pids() not in ([], [control]), "a new control")  # noqa: B023
            server.wait_control()
            wait_until(lambda: active_in_store(server) == served(server), "store and tree to agree")
    load.expect_no_failure()


def _pidfd(pid: int) -> int:
    import os

    return os.pidfd_open(pid)


def served(server: Server) -> str:
    """The version that answers."""
    return server.predict("m").headers["x-hotswap-version"]


def active_in_store(server: Server) -> str | None:
    """What a restart would serve, unless a flip is unfinished."""
    document = read_document(database(server))
    return None if document.intent is not None else document.active


def read_document(path: Path) -> ModelDocument:
    """Model ``m`` as the store has it."""

    async def read() -> ModelDocument:
        store = SqliteStore(path)
        await store.open()
        try:
            found = await store.get("model", "m")
        finally:
            await store.close()
        assert found is not None
        return msgspec.msgpack.decode(found[0], type=ModelDocument)

    return asyncio.run(read())


def write_document(path: Path, document: ModelDocument) -> None:
    """Write model ``m`` into the store."""

    async def write() -> None:
        store = SqliteStore(path)
        await store.open()
        try:
            await store.put("model", "m", msgspec.msgpack.encode(document))
        finally:
            await store.close()

    asyncio.run(write())
