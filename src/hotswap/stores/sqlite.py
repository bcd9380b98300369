"""The embedded store: one SQLite file.

In WAL mode with ``synchronous=FULL``: a `put` that returned is on the disk, also after a power
cut (control writes a few documents per decision, so the price is small). Statements wait two
seconds for another process's lock. A trouble (damage, a lock, a full disk, no permission, a
newer schema) is a `StoreError` of one sentence that names the file; the connection is then given
up and the next call opens a new one, so the store works again as soon as the trouble is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from hotswap.errors import Conflict, StoreError
from hotswap.stores.memory import conflict_message

if TYPE_CHECKING:
    import aiosqlite
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

BUSY_SECONDS: Final = 2.0
PRAGMAS: tuple[str, ...] = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
"""Run on each new connection."""

_MIGRATIONS: Final = Path(__file__).parent / "migrations"

_ADVICE: Final = {
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup, or move it away to start anew",
    sqlite3.SQLITE_NOTADB: "is not a hotswap store: restore it from a backup, or move it away",
    sqlite3.SQLITE_BUSY: "is locked by another process: stop it, or give another --state-dir",
    sqlite3.SQLITE_LOCKED: "is locked by another process: stop it, or give another --state-dir",
    sqlite3.SQLITE_READONLY: "is read-only: make the file and its folder writable",
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full: free some space",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check that its folder exists and is writable",
    sqlite3.SQLITE_PERM: "cannot be opened: make the file and its folder writable",
    sqlite3.SQLITE_IOERR: "cannot be read or written: check the disk",
    sqlite3.SQLITE_TOOBIG: "cannot hold a value of this size: store less",
}


class SqliteStore:
    """`hotswap.ports.Store` in the file ``path`` (made with its folder if it is not there).

    Used from one event loop. One connection, on its own thread, serves one call after another.
    """

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        self._path = path.absolute()
        self._busy_seconds = busy_seconds
        self._engine: AsyncEngine | None = None
        self._file: tuple[int, int] | None = None
        self._opened = False
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Connect and migrate. Raises `StoreError` with one clear line; may be called again."""
        async with self._lock:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"the store's folder {self._path.parent} cannot be made "
                    f"({error.strerror or error}): give another --state-dir"
                ) from error
            self._opened = True
            await self._reset()
            await self._connect(create=True)

    async def close(self) -> None:
        """Close the file. Calls raise `StoreError` until `open` is called again."""
        async with self._lock:
            self._opened = False
            await self._reset()

    async def get(self, kind: str, key: str) -> tuple[bytes, int] | None:
        """The value and its generation, or None."""
        from sqlalchemy import select

        from hotswap.stores.schema import documents as d

        async with self._transaction() as connection:
            query = select(d.c.value, d.c.generation).where(d.c.kind == kind, d.c.key == key)
            row = (await connection.execute(query.where(d.c.value.is_not(None)))).one_or_none()
        return None if row is None else (bytes(row[0]), int(row[1]))

    async def put(self, kind: str, key: str, value: bytes, generation: int | None = None) -> int:
        """Write durably; the new generation, higher than any that this key ever had.

        Raises `Conflict` if ``generation`` is given and is not the present one (0: absent).
        """
        from sqlalchemy import update
        from sqlalchemy.dialects.sqlite import insert

        from hotswap.stores.schema import documents as d

        change = {"value": value, "generation": d.c.generation + 1}
        statement: Any
        if generation:
            statement = update(d).values(change).where(d.c.kind == kind, d.c.key == key)
            statement = statement.where(d.c.generation == generation, d.c.value.is_not(None))
        else:
            statement = insert(d).values(kind=kind, key=key, value=value, generation=1)
            statement = statement.on_conflict_do_update(
                index_elements=[d.c.kind, d.c.key],
                set_=change,
                where=d.c.value.is_(None) if generation == 0 else None,
            )
        async with self._transaction() as connection:
            row = (await connection.execute(statement.returning(d.c.generation))).one_or_none()
        if row is None:
            raise Conflict(conflict_message(kind, key, generation or 0))
        return int(row[0])

    async def delete(self, kind: str, key: str) -> None:
        """Remove it durably; nothing happens if it is not there."""
        from sqlalchemy import update

        from hotswap.stores.schema import documents as d

        statement = update(d).values(value=None, generation=d.c.generation + 1)
        statement = statement.where(d.c.kind == kind, d.c.key == key, d.c.value.is_not(None))
        async with self._transaction() as connection:
            await connection.execute(statement)

    async def scan(self, kind: str) -> list[tuple[str, bytes, int]]:
        """Every (key, value, generation) of a kind, by key (code point order)."""
        from sqlalchemy import select

        from hotswap.stores.schema import documents as d

        query = select(d.c.key, d.c.value, d.c.generation)
        query = query.where(d.c.kind == kind, d.c.value.is_not(None)).order_by(d.c.key)
        async with self._transaction() as connection:
            rows = (await connection.execute(query)).all()
        return [(str(key), bytes(value), int(generation)) for key, value, generation in rows]

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction on the one connection; any trouble gives the connection up."""
        async with self._lock:
            if not self._opened:
                raise StoreError("the store is not open: call open() first")
            if self._engine is not None and self._file != _identity(self._path):
                await self._reset()  # the file was replaced, and we hold the old one
            if self._engine is None:
                await self._connect(create=False)
            assert self._engine is not None
            async with self._translated(), self._engine.begin() as connection:
                yield connection

    async def _connect(self, create: bool) -> None:
        from sqlalchemy import AsyncAdaptedQueuePool, event
        from sqlalchemy.ext.asyncio import create_async_engine

        # After the first opening a missing file is a trouble, not an empty store.
        mode = "rwc" if create else "rw"
        self._engine = create_async_engine(
            "sqlite+aiosqlite://",
            async_creator=partial(_open, self._path, mode, self._busy_seconds),
            poolclass=AsyncAdaptedQueuePool,
            pool_size=1,
            max_overflow=0,
        )
        event.listen(self._engine.sync_engine, "begin", _begin)
        async with self._translated():
            async with self._engine.begin() as connection:
                await connection.run_sync(self._migrate)
            self._file = _identity(self._path)

    def _migrate(self, connection: Connection) -> None:
        """Bring the schema to `HEAD`; Alembic is imported only if there is something to do."""
        from sqlalchemy import inspect, text

        from hotswap.stores.schema import HEAD

        tables = inspect(connection).get_table_names()
        present = None
        if "alembic_version" in tables:
            present = connection.scalar(text("SELECT version_num FROM alembic_version"))
        elif tables:
            raise StoreError(
                f"{self._path} is a database of something else (it has a table {tables[0]!r}): "
                "give another --state-dir"
            )
        if present == HEAD:
            return
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", os.fspath(_MIGRATIONS).replace("%", "%%"))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if present is not None and present not in known:
            raise StoreError(
                f"{self._path} was written by a newer hotswap (schema {present}, this one knows "
                f"{HEAD}): install that version, or give another --state-dir"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        """Turn the database's errors into `StoreError`, and give the connection up on any."""
        try:
            yield
        except BaseException as error:
            await asyncio.shield(self._reset())
            cause = _sqlite_error(error)
            if cause is None:
                raise
            raise StoreError(f"the store {self._path} {_advice(cause)}") from error

    async def _reset(self) -> None:
        engine, self._engine, self._file = self._engine, None, None
        if engine is not None:
            await engine.dispose()


async def _open(path: Path, mode: str, busy_seconds: float) -> aiosqlite.Connection:
    """Connect; if that fails, the connection's thread has ended when this raises.

    (Left to itself, the driver's thread may outlive the event loop that it answers to.)
    """
    import aiosqlite

    connection = aiosqlite.connect(
        f"file:{quote(os.fspath(path))}?mode={mode}",
        uri=True,
        timeout=busy_seconds,
        # The driver's own BEGIN leaves DDL outside of the transaction, and a migration must be
        # all or nothing: `_begin` begins instead.
        isolation_level=None,
        check_same_thread=False,
    )
    thread: Any = getattr(connection, "_thread", connection)  # older versions are a thread
    thread.daemon = True
    try:
        await connection
        for pragma in PRAGMAS:
            await (await connection.execute(pragma)).close()
    except BaseException:
        with contextlib.suppress(sqlite3.Error, ValueError):
            await connection.close()
        await asyncio.to_thread(thread.join, 1.0)
        raise
    return connection


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _sqlite_error(error: BaseException | None) -> sqlite3.Error | None:
    """The driver's error somewhere below ``error``, if the database is the cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, sqlite3.Error):
            return error
        original = getattr(error, "orig", None)
        error = original if isinstance(original, BaseException) else error.__cause__
    return None


def _advice(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int) and (advice := _ADVICE.get(code & 0xFF)):
        return advice
    return f"cannot be used ({error}): check the file"
