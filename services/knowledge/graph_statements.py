"""The graph's schema, and how entries come into it and leave it. Runs in the process of the graphs, over one open connection inside a transaction.

Nodes Entry, Task, Executor, Pattern and Error; relations point from what acts: Task EXECUTED_BY Executor, Task FAILED_WITH Error, Task PRODUCED Entry,
Task DEPENDS_ON Task, Task PART_OF Task, Pattern LEARNED_FROM Task, Pattern DESCRIBED_BY Entry, Entry RELATED Entry.

``stated_by`` on a task and on relations is the id of the entry that says so. What a task is comes from the entry that spoke last; nodes that nothing
is said about any more are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from services.knowledge.graph_wire import GraphEntry

Run = Callable[[str, dict[str, Any]], list[list[Any]]]
"""Run one statement with parameters; its rows."""

SCHEMA_VERSION: Final = 1
SCHEMA: Final = (
    "CREATE NODE TABLE Entry(id STRING PRIMARY KEY, space STRING, type STRING, text STRING, metadata STRING, key STRING, created_at DOUBLE)",
    """CREATE NODE TABLE Task(id STRING PRIMARY KEY, space STRING, type STRING, description STRING, status STRING, owner STRING, attempt INT64,
    priority INT64, created_at DOUBLE, updated_at DOUBLE, stated_by STRING)""",
    "CREATE NODE TABLE Executor(id STRING PRIMARY KEY, space STRING, type STRING)",
    "CREATE NODE TABLE Pattern(id STRING PRIMARY KEY, space STRING, text STRING, created_at DOUBLE)",
    "CREATE NODE TABLE Error(code STRING PRIMARY KEY, space STRING)",
    "CREATE REL TABLE RELATED(FROM Entry TO Entry, stated_by STRING)",
    "CREATE REL TABLE PRODUCED(FROM Task TO Entry, stated_by STRING)",
    "CREATE REL TABLE EXECUTED_BY(FROM Task TO Executor, stated_by STRING)",
    "CREATE REL TABLE FAILED_WITH(FROM Task TO Error, message STRING, stated_by STRING)",
    "CREATE REL TABLE DEPENDS_ON(FROM Task TO Task, stated_by STRING)",
    "CREATE REL TABLE PART_OF(FROM Task TO Task, stated_by STRING)",
    "CREATE REL TABLE LEARNED_FROM(FROM Pattern TO Task, stated_by STRING)",
    "CREATE REL TABLE DESCRIBED_BY(FROM Pattern TO Entry, stated_by STRING)",
)
_TASK_SAYS: Final = "EXECUTED_BY|FAILED_WITH|DEPENDS_ON|PART_OF"
_TASK_FIELDS: Final = ("type", "description", "status", "owner", "attempt", "priority", "created_at", "updated_at")
_SET_TASK: Final = ", ".join(f"t.{name} = r.{name}" for name in _TASK_FIELDS)
_STRIP_TASK: Final = ", ".join(f"t.{name} = NULL" for name in (*_TASK_FIELDS, "stated_by"))
_KEYS: Final = {"Task": "id", "Executor": "id", "Error": "code"}


_FEW: Final = 16


def _each(run: Run, statement: str, ids: Sequence[str]) -> list[list[Any]]:
    """Run a statement about ``$i`` for each id. The engine looks a node up by a parameter, but scans the table for unwound ids: so few go one by one."""
    if len(ids) <= _FEW:
        return [row for one in ids for row in run(statement, {"i": one})]
    return run("UNWIND $ids AS i " + statement.replace("$i", "i"), {"ids": list(ids)})


def put_entries(run: Run, space: str, entries: Sequence[GraphEntry]) -> None:
    """Make the graph say what these entries say, and no more what they said before."""
    ids = [entry.id for entry in entries]
    touched = _mentioned(run, ids)
    _unsay(run, ids)
    told = {entry.facts["task"]["id"]: entry for entry in entries if "task" in entry.facts}
    _silence_tasks(run, list(told), touched)
    run(
        "UNWIND $rows AS r MERGE (e:Entry {id: r.id}) SET e.space = r.space, e.type = r.type, e.text = r.text, e.metadata = r.metadata, e.key = r.key, "
        "e.created_at = r.created_at",
        {"rows": [_entry_row(space, entry) for entry in entries]},
    )
    _put_nodes(run, space, entries, told)
    for label, source, target, extra in _RELATIONS:
        rows = _relation_rows(label, entries, told)
        if rows:
            keys = _KEYS | {"Entry": "id", "Pattern": "id"}
            more = f", {extra}: r.{extra}" if extra else ""
            run(
                f"UNWIND $rows AS r MATCH (a:{source} {{{keys[source]}: r.a}}) MATCH (b:{target} {{{keys[target]}: r.b}}) "
                f"CREATE (a)-[:{label} {{stated_by: r.by{more}}}]->(b)",
                {"rows": rows},
            )
    _drop_orphans(run, touched)


def remove_entries(run: Run, ids: Sequence[str]) -> None:
    """Take entries out, what only they said, and nodes that nobody speaks of any more."""
    touched = _mentioned(run, list(ids))
    _unsay(run, list(ids))
    _each(run, "MATCH (e:Entry {id: $i}) DETACH DELETE e", ids)
    _each(run, "MATCH (p:Pattern {id: $i}) DETACH DELETE p", ids)
    _drop_orphans(run, touched)


def _entry_row(space: str, entry: GraphEntry) -> dict[str, Any]:
    return {
        "id": entry.id, "space": space, "type": entry.type, "text": entry.text, "metadata": entry.metadata, "key": entry.key,
        "created_at": entry.created_at,
    }  # fmt: skip


def _mentioned(run: Run, ids: list[str]) -> dict[str, set[str]]:
    """Nodes that may stand alone once these entries have gone silent."""
    touched: dict[str, set[str]] = {"Task": set(), "Executor": set(), "Error": set()}
    for statement in ("MATCH (:Entry {id: $i})<-[:PRODUCED]-(t:Task) RETURN t.id", "MATCH (:Pattern {id: $i})-[:LEARNED_FROM]->(t:Task) RETURN t.id"):
        touched["Task"] |= {row[0] for row in _each(run, statement, ids)}
    _reach(run, touched, sorted(touched["Task"]))
    return touched


def _reach(run: Run, touched: dict[str, set[str]], task_ids: list[str]) -> None:
    if not task_ids:
        return
    for kind, key, code in _each(run, f"MATCH (:Task {{id: $i}})-[:{_TASK_SAYS}]->(o) RETURN label(o), o.id, o.code", task_ids):
        touched[kind].add(code if kind == "Error" else key)


def _silence_tasks(run: Run, task_ids: list[str], touched: dict[str, set[str]]) -> None:
    """Who speaks of a task now speaks for all: relations that another entry stated for it go."""
    if task_ids:
        _reach(run, touched, task_ids)
        _each(run, f"MATCH (:Task {{id: $i}})-[x:{_TASK_SAYS}]->() DELETE x", task_ids)


def _unsay(run: Run, ids: list[str]) -> None:
    speaking = [row[0] for row in _each(run, "MATCH (e:Entry {id: $i})<-[:PRODUCED]-(:Task) RETURN DISTINCT e.id", ids)]
    _each(run, f"MATCH (:Entry {{id: $i}})<-[:PRODUCED]-(:Task)-[x:{_TASK_SAYS}]->() WHERE x.stated_by = $i DELETE x", speaking)
    _each(run, f"MATCH (:Entry {{id: $i}})<-[:PRODUCED]-(t:Task) WHERE t.stated_by = $i SET {_STRIP_TASK}", speaking)
    _each(run, "MATCH (:Entry {id: $i})<-[x:PRODUCED]-() DELETE x", speaking)
    _each(run, "MATCH (:Entry {id: $i})-[x:RELATED]->() DELETE x", ids)
    _each(run, "MATCH (:Pattern {id: $i})-[x:LEARNED_FROM|DESCRIBED_BY]->() DELETE x", ids)


def _put_nodes(run: Run, space: str, entries: Sequence[GraphEntry], told: dict[str, GraphEntry]) -> None:
    stubs = {target for entry in entries for target in entry.related}
    run("UNWIND $rows AS r MERGE (e:Entry {id: r.id}) ON CREATE SET e.space = r.space", {"rows": _rows(space, stubs)})
    tasks = {task for entry in entries for key in ("depends_on", "mentions") for task in entry.facts.get(key, ())}
    tasks |= {entry.facts["parent"] for entry in entries if "parent" in entry.facts}
    run("UNWIND $rows AS r MERGE (t:Task {id: r.id}) ON CREATE SET t.space = r.space", {"rows": _rows(space, tasks)})
    stated = [{**entry.facts["task"], "space": space, "by": entry.id} for entry in told.values()]
    run(f"UNWIND $rows AS r MERGE (t:Task {{id: r.id}}) SET t.space = r.space, t.stated_by = r.by, {_SET_TASK}", {"rows": stated})
    executors = {entry.facts["executor"]["id"]: entry.facts["executor"].get("type") or "" for entry in told.values() if "executor" in entry.facts}
    rows = [{"id": key, "type": kind, "space": space} for key, kind in executors.items()]
    run("UNWIND $rows AS r MERGE (x:Executor {id: r.id}) SET x.space = r.space, x.type = r.type", {"rows": rows})
    errors = {entry.facts["error"]["code"] for entry in told.values() if "error" in entry.facts}
    run("UNWIND $rows AS r MERGE (x:Error {code: r.id}) SET x.space = r.space", {"rows": _rows(space, errors)})
    patterns = [entry for entry in entries if entry.facts.get("pattern")]
    rows = [{"id": one.id, "space": space, "text": one.text, "at": one.created_at} for one in patterns]
    run("UNWIND $rows AS r MERGE (p:Pattern {id: r.id}) SET p.space = r.space, p.text = r.text, p.created_at = r.at", {"rows": rows})


def _rows(space: str, keys: set[str]) -> list[dict[str, Any]]:
    return [{"id": key, "space": space} for key in sorted(keys)]


_RELATIONS: Final = (
    ("RELATED", "Entry", "Entry", ""),
    ("PRODUCED", "Task", "Entry", ""),
    ("EXECUTED_BY", "Task", "Executor", ""),
    ("FAILED_WITH", "Task", "Error", "message"),
    ("DEPENDS_ON", "Task", "Task", ""),
    ("PART_OF", "Task", "Task", ""),
    ("LEARNED_FROM", "Pattern", "Task", ""),
    ("DESCRIBED_BY", "Pattern", "Entry", ""),
)


def _relation_rows(label: str, entries: Sequence[GraphEntry], told: dict[str, GraphEntry]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for entry in entries:
        facts = entry.facts
        task = facts.get("task", {}).get("id")
        speaks = task is not None and told[task] is entry
        if label == "RELATED":
            rows += [{"a": entry.id, "b": target, "by": entry.id} for target in entry.related]
        elif label == "PRODUCED" and task is not None:
            rows.append({"a": task, "b": entry.id, "by": entry.id})
        elif label == "EXECUTED_BY" and speaks and "executor" in facts:
            rows.append({"a": task, "b": facts["executor"]["id"], "by": entry.id})
        elif label == "FAILED_WITH" and speaks and "error" in facts:
            rows.append({"a": task, "b": facts["error"]["code"], "by": entry.id, "message": facts["error"]["message"]})
        elif label == "DEPENDS_ON" and speaks:
            rows += [{"a": task, "b": other, "by": entry.id} for other in dict.fromkeys(facts.get("depends_on", ()))]
        elif label == "PART_OF" and speaks and "parent" in facts:
            rows.append({"a": task, "b": facts["parent"], "by": entry.id})
        elif label == "LEARNED_FROM" and facts.get("pattern"):
            rows += [{"a": entry.id, "b": other, "by": entry.id} for other in dict.fromkeys(facts.get("mentions", ()))]
        elif label == "DESCRIBED_BY" and facts.get("pattern"):
            rows.append({"a": entry.id, "b": entry.id, "by": entry.id})
    return rows


def _drop_orphans(run: Run, touched: dict[str, set[str]]) -> None:
    for label, keys in touched.items():
        if keys:
            _each(run, f"MATCH (x:{label} {{{_KEYS[label]}: $i}}) WHERE NOT EXISTS {{ MATCH (x)-[]-() }} DELETE x", sorted(keys))
