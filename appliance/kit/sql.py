"""Relational storage: opens the database of a service and brings its tables to the version the code needs.

Owns: connection settings, transactions, schema versions, translation of driver errors.
Does not own: any table. All SQL that only one database understands lives in this module.

How a service declares its tables (see ``appliance/identity`` for a whole example):

1. ``tables.py`` describes them with SQLAlchemy Core (``sa.Table`` on a module-level ``sa.MetaData``); queries use
   these objects.
2. ``migrations/__init__.py`` (a package, so that wheels carry it) and one module per change, ``v0001_<what>.py``::

       import sqlalchemy as sa
       from alembic import op

       revision = "0001"
       down_revision = None

       def upgrade() -> None:
           op.create_table("threads", sa.Column("id", sa.String(40), primary_key=True), ...)

   Migrations are append-only and never import ``tables.py`` (which moves on). All missing ones run inside one
   transaction, on SQLite too. Give every column its type, foreign keys as well. From the second release on each has
   ``def downgrade()`` as well (what keeps rows that were written meanwhile), or it has none and cannot be rolled back.
   Changing a column on SQLite: ``with op.batch_alter_table("threads") as batch: ...``.
3. ``tables.py`` also says which version the code needs::

       SCHEMA = Schema(name="threads", migrations="services.gateway.migrations", head="0002")

4. ``bootstrap.py`` opens it, uses it, and disposes of it::

       engine = await open_database(home / "threads.db", SCHEMA)
       async with reading(engine) as connection: rows = (await connection.execute(sa.select(...))).all()
       async with writing(engine) as connection: await connection.execute(sa.insert(...))   # commits at the end
       await engine.dispose()

Several schemas may share one database: each keeps its version in a table of its own, ``<name>_schema_version``.
Alembic is imported only when a schema is behind, so a start on current tables costs one SELECT per schema.

Take one connection at a time: the pool is bounded, a coroutine that holds one and asks for a second can wait for
itself.
Never await anything slow inside ``writing``: on SQLite it holds the only write lock of the file.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from appliance.kit.errors import ApplianceError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory
    from sqlalchemy.engine import Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor

POOL_SIZE: Final = 6
POOL_TIMEOUT_SECONDS: Final = 30.0
BUSY_TIMEOUT_SECONDS: Final = 10.0
_MODE_RETRY_SECONDS: Final = 0.01
_WRITES: Final = "appliance_writes"
_TWINS: Final[WeakKeyDictionary[sa.Engine, sa.Engine]] = WeakKeyDictionary()
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one owner.

    Attributes:
        name: ``[a-z_]+``, unique in the house; names the version table.
        migrations: dotted name of the package that holds the Alembic revisions.
        head: revision that this code needs; a test proves it is the last one in ``migrations``.
    """

    name: str
    migrations: str
    head: str

    @property
    def version_table(self) -> str:
        """Table that holds the applied revision in its one row."""
        return f"{self.name}_schema_version"


async def open_database(location: Path | str, *schemas: Schema, pool_size: int = POOL_SIZE) -> AsyncEngine:
    """Open a database and bring ``schemas`` to their heads.

    Args:
        location: path of an SQLite file (made with mode 0600 when absent), or a SQLAlchemy URL with an async driver
            (``postgresql+asyncpg://…``).
        schemas: what must be current before this returns.
        pool_size: most connections open at once; there is no overflow.

    Raises:
        ApplianceError: ``home_invalid`` when the file cannot be opened or was written by newer code; ``disk_full``;
            ``unavailable`` when another process holds the lock for longer than the busy timeout.
    """
    engine = (
        _sqlite_engine(location, pool_size)
        if isinstance(location, Path)
        else create_async_engine(location, pool_size=pool_size, max_overflow=0, pool_timeout=POOL_TIMEOUT_SECONDS, pool_pre_ping=True)
    )
    try:
        for schema in schemas:
            await migrate(engine, schema)
    except BaseException:
        await engine.dispose()
        raise
    return engine


async def migrate(engine: AsyncEngine, schema: Schema) -> None:
    """Bring ``schema`` to its head; one SELECT when it is there already. Safe to race from several processes."""
    async with reading(engine) as connection:
        current = await connection.run_sync(_applied, schema)
    if current == schema.head:
        return
    async with writing(engine) as connection:
        await connection.run_sync(_upgrade, schema)


async def downgrade_database(engine: AsyncEngine, targets: Mapping[Schema, str], *, check: bool = False) -> list[str]:
    """Take tables back to earlier revisions, with the code that brought them forward; all of one database in one transaction.

    A migration has a way back when its module has a function ``downgrade``; one without it makes the whole call refuse before anything is
    changed. Tables that are at their target, or that do not exist, are left alone: safe to repeat.

    Args:
        engine: from :func:`open_database` without schemas, so that nothing is brought forward first.
        targets: schema → revision that the older code needs.
        check: only say what would be done.

    Returns:
        What was taken back: ``gateway 0003 → 0001``.

    Raises:
        ApplianceError: ``conflict`` when a change has no way back, ``home_invalid`` when the tables are at a revision this code does not know.
    """
    async with writing(engine) as connection:
        ways = [way for schema, target in targets.items() if (way := await connection.run_sync(_way_back, schema, target)) is not None]
        for schema, applied, target in ways if not check else ():
            await connection.run_sync(_downgrade, schema, target)
            if await connection.run_sync(_applied, schema) != target:
                raise ApplianceError("internal", f"{schema.name}: {applied} did not go back to {target}", hint="send the log to support")
    return [f"{schema.name} {applied} → {target}" for schema, applied, target in ways]


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Give one connection with one consistent snapshot. Driver errors come out as ApplianceError."""
    try:
        async with engine.connect() as connection:
            yield connection
    except (DBAPIError, PoolTimeoutError) as error:
        raise _translated(error) from error


async def read_at_once(engine: AsyncEngine, read: Callable[[Connection], Result]) -> Result:
    """Run ``read(connection)`` on one consistent snapshot and return what it returns; for reads on the path of a waiting person.

    An async SQLite connection is a thread of its own, and every statement, fetch and transaction mark is a round trip to it (eight for one
    SELECT, and each waits for its turn on a busy machine). Here the whole read is one trip to one thread. ``read`` must not keep the connection.
    """
    if engine.dialect.name != "sqlite":
        async with reading(engine) as connection:
            return await connection.run_sync(read)
    twin = _twin(engine)

    def run() -> Result:
        try:
            with twin.connect() as connection:
                return read(connection)
        except (DBAPIError, PoolTimeoutError) as error:
            raise _translated(error) from error

    return await asyncio.to_thread(run)


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open a write transaction: it commits when the block ends and rolls back when it raises.

    On SQLite it takes the write lock at once (BEGIN IMMEDIATE), so what is read inside cannot change before the commit
    and a busy neighbour is waited for rather than failed on. IntegrityError passes as it is: only the caller knows
    what it means.

    Raises:
        ApplianceError: ``disk_full``, ``unavailable``, ``home_invalid``.
        sqlalchemy.exc.IntegrityError: a constraint of the tables refused the change.
    """
    try:
        async with engine.execution_options(**{_WRITES: True}).begin() as connection:
            yield connection
    except (DBAPIError, PoolTimeoutError) as error:
        if isinstance(error, sa.exc.IntegrityError):
            raise
        raise _translated(error) from error


def _sqlite_engine(path: Path, pool_size: int) -> AsyncEngine:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # -wal and -shm inherit the mode
    except OSError as error:
        raise ApplianceError(
            "home_invalid",
            f"cannot open the database {path.name}: {error.strerror}",
            hint=f"check that {path.parent} exists and belongs to the user who runs the box",
            path=str(path),
        ) from error
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS},
    )
    sa.event.listen(engine.sync_engine, "connect", _configure_sqlite)
    sa.event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _twin(engine: AsyncEngine) -> sa.Engine:
    """A synchronous engine on the same SQLite file, made at the first need, disposed of with ``engine``."""
    twin = _TWINS.get(engine.sync_engine)
    if twin is None:
        twin = sa.create_engine(
            f"sqlite:///{engine.url.database}",
            pool_size=POOL_SIZE, max_overflow=0, pool_timeout=POOL_TIMEOUT_SECONDS, connect_args={"timeout": BUSY_TIMEOUT_SECONDS},
        )  # fmt: skip
        sa.event.listen(twin, "connect", _configure_sqlite)
        sa.event.listen(twin, "begin", _begin_sqlite)
        sa.event.listen(engine.sync_engine, "engine_disposed", lambda _: twin.dispose())
        _TWINS[engine.sync_engine] = twin
    return twin


def _configure_sqlite(connection: DBAPIConnection, _record: object) -> None:
    """Durable commits (FULL: a power cut loses nothing acknowledged), readers that never block the writer."""
    connection.isolation_level = None  # sqlite3 must not begin or commit on its own: DDL is transactional only then
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_SECONDS * 1000)}")
    _enter_wal(cursor)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "wal_autocheckpoint=1000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _enter_wal(cursor: DBAPICursor) -> None:
    """Journal mode WAL. SQLite does not wait for the busy time-out when two connections change the mode of one new file at once, so we do."""
    ends_at = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > ends_at:
                raise
            time.sleep(_MODE_RETRY_SECONDS)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _applied(connection: Connection, schema: Schema) -> str | None:
    if not sa.inspect(connection).has_table(schema.version_table):
        return None
    table = sa.table(schema.version_table, sa.column("version_num"))
    value = connection.execute(sa.select(table.c.version_num)).scalar()
    return None if value is None else str(value)


def _upgrade(connection: Connection, schema: Schema) -> None:
    """Run the missing revisions inside the caller's transaction, which holds the write lock."""
    _known_revision(connection, schema, _revisions(schema))  # another process may have been faster while we waited for the lock
    _run_revisions(connection, schema, lambda script, revision: script._upgrade_revs(schema.head, revision), schema.head)  # noqa: SLF001


def _way_back(connection: Connection, schema: Schema, target: str) -> tuple[Schema, str, str] | None:
    """Schema, applied and target revision; None when there is nothing to do. Raises ``conflict``, ``home_invalid``."""
    script = _revisions(schema)
    applied = _known_revision(connection, schema, script)
    if applied in {None, target}:
        return None
    assert applied is not None
    steps = list(script.walk_revisions(base=target, head=applied)) if target in {found.revision for found in script.walk_revisions()} else []
    if not steps:
        hint = "roll back to a release in between first"
        raise ApplianceError("conflict", f"the {schema.name} tables cannot go from {applied} to {target}: no way is known", hint=hint)
    for step in steps[:-1]:  # the last one is the target itself
        if not hasattr(step.module, "downgrade"):
            raise ApplianceError(
                "conflict", f"the {schema.name} tables cannot go back from {applied} to {target}: revision {step.revision} has no way back",
                hint="stay, or go back to the data from before the upgrade: appliance bundle rollback --restore-data",
            )  # fmt: skip
    return schema, applied, target


def _downgrade(connection: Connection, schema: Schema, target: str) -> None:
    _run_revisions(connection, schema, lambda script, revision: script._downgrade_revs(target, revision), target)  # noqa: SLF001


def _revisions(schema: Schema) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    spec = importlib.util.find_spec(schema.migrations)
    if spec is None or not spec.submodule_search_locations:
        raise ApplianceError("internal", f"no migrations package {schema.migrations}", hint="reinstall the appliance")
    folder = spec.submodule_search_locations[0]
    return ScriptDirectory(folder, version_locations=[folder])


def _known_revision(connection: Connection, schema: Schema, script: ScriptDirectory) -> str | None:
    applied = _applied(connection, schema)
    if applied is not None and applied not in {revision.revision for revision in script.walk_revisions()}:
        raise ApplianceError(
            "home_invalid",
            f"the {schema.name} tables have version {applied}, which this release does not know",
            hint="start the release that wrote them, or restore the backup made before the upgrade",
        )
    return applied


def _run_revisions(connection: Connection, schema: Schema, steps: Callable[[ScriptDirectory, Any], Any], target: str) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    script = _revisions(schema)
    with EnvironmentContext(Config(), script, fn=lambda revision, _: steps(script, revision), destination_rev=target) as environment:
        environment.configure(connection=connection, version_table=schema.version_table, render_as_batch=True)
        environment.run_migrations()


def _translated(error: DBAPIError | PoolTimeoutError) -> ApplianceError:
    text = str(getattr(error, "orig", None) or error)
    if "disk is full" in text or "No space left" in text:
        return ApplianceError("disk_full", "the disk is full, nothing was changed", hint="free space in the appliance home", cause=text)
    if "locked" in text or isinstance(error, PoolTimeoutError):
        return ApplianceError(
            "unavailable",
            "the database is busy",
            hint="try again; if it lasts, look for a stuck process that uses the appliance home",
            cause=text,
        )
    if "unable to open" in text or "not a database" in text or "malformed" in text or "readonly" in text or "disk I/O" in text:
        return ApplianceError(
            "home_invalid",
            "the database file cannot be used",
            hint="check disk and permissions (appliance doctor), then restore the last backup",
            cause=text,
        )
    return ApplianceError("internal", "the database refused a statement", hint="send the log to support", cause=text)
