"""The SQLite store in trouble, and after it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hotswap.errors import StoreError
from hotswap.stores import sqlite as module
from hotswap.stores.schema import HEAD, metadata
from hotswap.stores.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, busy_seconds=0.05)
    await store.open()
    yield store
    await store.close()


def says(error: pytest.ExceptionInfo[StoreError], path: Path, what: str) -> None:
    """The message is one line that names the file and says what is wrong."""
    message = str(error.value)
    assert str(path) in message
    assert what in message
    assert "\n" not in message


async def test_the_migrated_schema_is_the_declared_one(store: SqliteStore, path: Path) -> None:
    """The migrations make exactly the tables that the statements are written for."""
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine

    await store.put("k", "x", b"1")
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == HEAD
    engine.dispose()
    config = Config()
    config.set_main_option("script_location", str(Path(module.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


async def test_puts_are_durable(store: SqliteStore, path: Path) -> None:
    """The file is in WAL mode, and each connection syncs at commit."""
    async with store._transaction() as connection:
        assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() == "wal"
        assert (await connection.exec_driver_sql("PRAGMA synchronous")).scalar() == 2


async def test_a_migration_that_fails_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first opening that broke off is simply done again."""
    from alembic import command

    upgrade = command.upgrade

    def broken(*args: object) -> None:
        upgrade(*args)  # type: ignore[arg-type]
        raise RuntimeError("power cut")

    store = SqliteStore(path)
    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", broken)
        with pytest.raises(RuntimeError, match="power cut"):
            await store.open()
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == []
    raw.close()
    await store.open()
    assert await store.put("k", "x", b"1", 0) == 1
    await store.close()


async def test_a_damaged_file_is_named_and_left_alone(path: Path) -> None:
    """Garbage is refused with what to do, and is not overwritten."""
    path.write_bytes(b"this is not a database" * 500)
    store = SqliteStore(path)
    with pytest.raises(StoreError) as caught:
        await store.open()
    says(caught, path, "is not a hotswap store")
    assert path.read_bytes().startswith(b"this is not")
    path.unlink()
    await store.open()
    assert await store.put("k", "x", b"1", 0) == 1
    await store.close()


async def test_damage_inside_the_file_is_told(path: Path) -> None:
    """Pages overwritten with noise are found and named."""
    store = SqliteStore(path)
    await store.open()
    for number in range(200):
        await store.put("k", f"{number}", b"x" * 1000)
    await store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        await store.open()
    says(caught, path, "is damaged")


async def test_a_locked_file_is_told_and_works_afterwards(store: SqliteStore, path: Path) -> None:
    """Another process's lock is waited for briefly, then named; afterwards the store works."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError) as caught:
        await store.put("k", "x", b"1")
    says(caught, path, "locked by another process")
    other.execute("ROLLBACK")
    other.close()
    assert await store.put("k", "x", b"1", 0) == 1


async def test_a_full_disk_is_told_and_works_afterwards(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that finds no room fails whole; with room again the store works."""
    tight = (*module.PRAGMAS, "PRAGMA max_page_count=8")
    store = SqliteStore(path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "PRAGMAS", tight)
        await store.open()
        await store.put("k", "small", b"1", 0)
        with pytest.raises(StoreError) as caught:
            await store.put("k", "large", b"x" * 100_000, 0)
        says(caught, path, "the disk is full")
        assert await store.get("k", "large") is None
        assert await store.get("k", "small") == (b"1", 1)
    await store.close()
    await store.open()
    assert await store.put("k", "large", b"x" * 100_000, 0) == 1
    await store.close()


async def test_a_read_only_database_is_told_and_works_afterwards(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that may not be written is named; reads go on."""
    store = SqliteStore(path)
    await store.open()
    await store.put("k", "x", b"1", 0)
    await store.close()
    with monkeypatch.context() as patch:
        patch.setattr(module, "PRAGMAS", (*module.PRAGMAS, "PRAGMA query_only=ON"))
        await store.open()
        assert await store.get("k", "x") == (b"1", 1)
        with pytest.raises(StoreError) as caught:
            await store.put("k", "x", b"2")
        says(caught, path, "is read-only")
    assert await store.put("k", "x", b"2", 1) == 2
    await store.close()


async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file where the state folder should be is named."""
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        await SqliteStore(tmp_path / "state" / "store.db").open()


async def test_a_folder_in_place_of_the_file_is_told(path: Path) -> None:
    """A path that is no file cannot be opened, and the message says so."""
    path.mkdir()
    with pytest.raises(StoreError) as caught:
        await SqliteStore(path).open()
    says(caught, path, "cannot be opened")


async def test_a_newer_schema_is_refused_and_not_touched(path: Path) -> None:
    """A store of a later hotswap is named as that, and keeps its content."""
    store = SqliteStore(path)
    await store.open()
    await store.put("k", "x", b"1")
    await store.close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError) as caught:
        await store.open()
    says(caught, path, "newer hotswap")
    assert raw.execute("SELECT count(*) FROM documents").fetchone() == (1,)
    raw.close()


async def test_another_programs_database_is_refused(path: Path) -> None:
    """A database that has tables but none of ours is not migrated."""
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE invoices (id)")
    with pytest.raises(StoreError) as caught:
        await SqliteStore(path).open()
    says(caught, path, "invoices")
    assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("invoices",)]
    raw.close()


async def test_a_vanished_file_is_told_and_used_again_when_it_is_back(
    store: SqliteStore, path: Path
) -> None:
    """Nothing is written into a deleted file, and no empty store is made in its place."""
    await store.put("k", "x", b"1", 0)
    aside = path.with_name("aside.db")
    path.rename(aside)
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            await store.put("k", "x", b"2")
        says(caught, path, "cannot be opened")
    assert not path.exists()
    aside.rename(path)
    assert await store.put("k", "x", b"2", 1) == 2


async def test_a_failed_opening_leaves_no_thread(path: Path) -> None:
    """When the error is raised, nothing of the attempt runs any more."""
    before = set(threading.enumerate())
    path.write_bytes(b"this is not a database" * 500)
    folder = path.with_name("folder.db")
    folder.mkdir()
    for bad in (path, folder):
        with pytest.raises(StoreError):
            await SqliteStore(bad).open()
    new = {thread.name for thread in set(threading.enumerate()) - before}
    assert {name for name in new if "asyncio" not in name} == set()


async def test_calls_before_open_and_after_close_are_refused(path: Path) -> None:
    """The store says that it is not open, and makes no file."""
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="not open"):
        await store.get("k", "x")
    assert not path.exists()


async def test_a_killed_writer_loses_nothing_that_was_confirmed(path: Path) -> None:
    """Kill -9 in the middle of writing: every confirmed document is there, and the file opens."""
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from hotswap.stores.sqlite import SqliteStore\n"
        "async def main():\n"
        "    store = SqliteStore(Path(sys.argv[1]))\n"
        "    await store.open()\n"
        "    for n in range(100_000):\n"
        "        await store.put('k', str(n), b'x' * 100, 0)\n"
        "        print(n, flush=True)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        confirmed = -1
        while confirmed < 20:
            confirmed = int(writer.stdout.readline())
        writer.kill()
        confirmed = max([confirmed, *map(int, writer.stdout.read().split(b"\n")[:-1])])
    store = SqliteStore(path)
    await store.open()
    keys = {int(key) for key, _, _ in await store.scan("k")}
    assert keys >= set(range(confirmed + 1))
    await store.close()
