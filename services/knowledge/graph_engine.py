"""Ladybug databases, one for each space, opened when needed, the least recently used closed. Only the process of the graphs imports this.

Owns: open databases, transactions, running a query with its limits. Does not own: the schema's meaning (``graph_statements``) or which Cypher may run
(``cypher_guard``, asked before).
"""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import ladybug
import msgspec

from services.knowledge.graph_statements import SCHEMA, SCHEMA_VERSION, put_entries, remove_entries
from services.knowledge.graph_wire import Request

_FILE: Final = f"graph-{SCHEMA_VERSION}.lbug"
_LARGEST_DATABASE_BYTES: Final = 4 << 30  # address space that is reserved, not memory


class GraphRefusalError(Exception):
    """An answer for the caller: a code of ``appliance.kit.errors`` and a message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class _OpenGraph:
    database: ladybug.Database
    writer: ladybug.Connection
    reader: ladybug.Connection
    users: int = 0
    reading: threading.Lock = field(default_factory=threading.Lock)
    writing: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> None:
        self.writer.close()
        self.reader.close()
        self.database.close()


class GraphEngine:
    """Answers requests, from several threads at once.

    Args:
        pool_bytes: buffer pool of each open database.
        most_open: databases kept open.
    """

    def __init__(self, pool_bytes: int, most_open: int) -> None:
        self._pool_bytes = pool_bytes
        self._most_open = most_open
        self._open: OrderedDict[str, _OpenGraph] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, request: Request) -> object:
        """Do what is asked; the value of the reply."""
        if request.do == "reset":
            self._reset(request.folder)
            return None
        with self._use(request.folder) as graph:
            if request.do == "apply":
                _apply(graph, request)
                return None
            if request.do == "count":
                return _run(graph.writer, graph.writing, "MATCH (e:Entry) RETURN count(e)", {})[0][0]
            if request.do == "neighbours":
                return _neighbours(graph, request)
            if request.do == "query":
                return _query(graph, request)
        raise GraphRefusalError("internal", f"unknown order {request.do}")

    @contextmanager
    def _use(self, folder: str) -> Iterator[_OpenGraph]:
        with self._lock:
            graph = self._open.get(folder) or self._opened(folder)
            self._open.move_to_end(folder)
            graph.users += 1
            self._close_idle()
        try:
            yield graph
        finally:
            with self._lock:
                graph.users -= 1

    def _opened(self, folder: str) -> _OpenGraph:
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        try:
            graph = self._connect(place)
        except Exception:  # torn or foreign: derived data, start anew; its count tells the box to fill it again
            _empty(place)
            graph = self._connect(place)
        self._open[folder] = graph
        return graph

    def _connect(self, place: Path) -> _OpenGraph:
        fresh = not (place / _FILE).exists()
        database = ladybug.Database(place / _FILE, buffer_pool_size=self._pool_bytes, max_num_threads=1, max_db_size=_LARGEST_DATABASE_BYTES)
        writer = ladybug.Connection(database)
        lock = threading.Lock()
        if fresh or len(_run(writer, lock, "CALL show_tables() RETURN name", {})) < len(SCHEMA):
            _run(writer, lock, "BEGIN TRANSACTION", {})
            for statement in SCHEMA:
                _run(writer, lock, statement.replace(" TABLE ", " TABLE IF NOT EXISTS ", 1), {})
            _run(writer, lock, "COMMIT", {})
        return _OpenGraph(database, writer, ladybug.Connection(database))

    def _close_idle(self) -> None:
        idle = [folder for folder, graph in self._open.items() if not graph.users]
        for folder in idle[: max(0, len(self._open) - self._most_open)]:
            self._open.pop(folder).close()

    def _reset(self, folder: str) -> None:
        with self._lock:
            graph = self._open.get(folder)
            if graph is not None and graph.users:
                raise GraphRefusalError("unavailable", "the graph is being read")
            if graph is not None:
                self._open.pop(folder).close()
            _empty(Path(folder))

    def close(self) -> None:
        """Close all; what is still running is cut off."""
        with self._lock:
            for graph in self._open.values():
                graph.close()
            self._open.clear()


def _empty(place: Path) -> None:
    for child in place.iterdir() if place.exists() else ():
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()


def _run(connection: ladybug.Connection, lock: threading.Lock, statement: str, parameters: dict[str, Any]) -> list[list[Any]]:
    with lock:
        return _rows_of(connection, statement, parameters)


def _rows_of(connection: ladybug.Connection, statement: str, parameters: dict[str, Any]) -> list[list[Any]]:
    if any(value == [] for value in parameters.values()):
        return []  # unwinding nothing does nothing, and the engine cannot tell the type of an empty list
    result = connection.execute(statement, parameters)
    assert isinstance(result, ladybug.QueryResult)
    try:
        return [list(row) for row in result.get_all()]
    finally:
        result.close()


def _apply(graph: _OpenGraph, request: Request) -> None:
    with graph.writing:

        def run(statement: str, parameters: dict[str, Any]) -> list[list[Any]]:
            return _rows_of(graph.writer, statement, parameters)

        run("BEGIN TRANSACTION", {})
        try:
            if request.removed:
                remove_entries(run, request.removed)
            if request.entries:
                put_entries(run, request.space, request.entries)
            run("COMMIT", {})
        except BaseException:
            with suppress(RuntimeError):
                run("ROLLBACK", {})
            raise


def _neighbours(graph: _OpenGraph, request: Request) -> dict[str, list[str]]:
    """One lookup by key after another: joins over several hops make the engine scan, and it keeps prepared what one connection repeats."""

    def ids(statement: str, key: str) -> list[str]:
        return sorted(row[0] for row in _rows_of(graph.reader, statement, {"i": key}))

    found: dict[str, list[str]] = {}
    with graph.reading:
        for entry in request.ids:
            near = ids("MATCH (:Entry {id: $i})-[:RELATED]-(o:Entry) RETURN o.id LIMIT 64", entry)
            done = ids("MATCH (:Entry {id: $i})<-[:PRODUCED]-(t:Task) RETURN t.id LIMIT 16", entry)
            learned = ids("MATCH (:Pattern {id: $i})-[:LEARNED_FROM]->(t:Task) RETURN t.id LIMIT 16", entry)
            for task in dict.fromkeys([*done, *learned]):
                near += ids("MATCH (:Task {id: $i})-[:PRODUCED]->(o:Entry) RETURN o.id LIMIT 16", task)
                near += ids("MATCH (:Task {id: $i})<-[:LEARNED_FROM]-(p:Pattern) RETURN p.id LIMIT 16", task)
            found[entry] = [other for other in dict.fromkeys(near) if other != entry][: request.limit]
    return found


def _query(graph: _OpenGraph, request: Request) -> list[dict[str, Any]]:
    with ladybug.Connection(graph.database) as reader:
        reader.set_query_timeout(max(1, int(request.seconds * 1000)))
        _rows_of(reader, "BEGIN TRANSACTION READ ONLY", {})
        try:
            result = reader.execute(request.cypher, request.parameters)
            if not isinstance(result, ladybug.QueryResult):
                raise GraphRefusalError("query_refused", "one statement at a time")
            return _collect(result, request.limit, request.result_bytes)
        except RuntimeError as error:
            raise _translated(str(error)) from error
        finally:
            with suppress(RuntimeError):
                _rows_of(reader, "ROLLBACK", {})


def _collect(result: ladybug.QueryResult, limit: int, most_bytes: int) -> list[dict[str, Any]]:
    names = result.get_column_names()
    if len(set(names)) < len(names):
        raise GraphRefusalError("invalid_request", "two columns have the same name: name them with AS")
    rows: list[dict[str, Any]] = []
    size = 0
    while len(rows) < limit and result.has_next():
        values = result.get_next()
        assert isinstance(values, list)
        row = {name: _plain(value) for name, value in zip(names, values, strict=True)}
        size += len(msgspec.json.encode(row, enc_hook=str))
        if size > most_bytes:
            raise GraphRefusalError("too_large", f"the answer is over {most_bytes // 1024} KiB: return fewer columns or rows")
        rows.append(row)
    result.close()
    return rows


def _plain(value: object) -> object:
    """JSON of a value: nodes and relations keep their label and properties, not the engine's numbers."""
    if isinstance(value, dict):
        plain = {str(key): _plain(child) for key, child in value.items() if key not in {"_ID", "_SRC", "_DST", "_LABEL"} and child is not None}
        if "_LABEL" in value:
            plain["label"] = value["_LABEL"]
        return plain
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    if isinstance(value, float) and (value != value or value in {float("inf"), float("-inf")}):  # noqa: PLR0124 - NaN
        return None
    return value


def _translated(text: str) -> GraphRefusalError:
    if "Interrupted" in text:
        return GraphRefusalError("query_timeout", "the query took longer than it may")
    if "Buffer manager exception" in text or "bad_alloc" in text:
        return GraphRefusalError("query_refused", "the query needs more memory than it may use")
    if "read-only transaction" in text:
        return GraphRefusalError("query_refused", "queries only read")
    return GraphRefusalError("invalid_request", "the query cannot be run: " + " ".join(text.split())[:400])
