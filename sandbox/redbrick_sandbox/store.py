"""SQLite storage of projects, tasks, labels, audit trails and files.

Invariants:

1. One process uses a database at a time, because sequence numbers and tasks are cached in memory. The database is
   locked exclusively.
2. Ids are derived from sequence numbers. The same operations on a fresh database always produce the same ids.
3. A rollback clears the caches of numbers and tasks. A direct statement (`run`) clears the cache of tasks.
4. Durability is traded for speed: a power failure can lose the last writes.

Stored documents are read with orjson, which is faster than the standard library. JSON from clients is read with the
standard library, because orjson turns integers beyond 64 bits into floats.

A store can keep a copy of itself that lags, as the replica of a database does. Its writes are repeated on the copy,
statement by statement, once they are old enough. Without a copy, nothing is recorded.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
from collections import deque
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from redbrick_sandbox.state_machine import Fact, Task, Work
from redbrick_sandbox.transitions import RefusalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


_TABLES = """
CREATE TABLE projects (project_id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE datapoints (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, dp_id TEXT NOT NULL UNIQUE, project_id TEXT NOT NULL,
    name TEXT NOT NULL, storage_id TEXT NOT NULL, created_at TEXT NOT NULL, created_by TEXT NOT NULL,
    items TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (project_id, name));
CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL UNIQUE, project_id TEXT NOT NULL,
    dp_id TEXT NOT NULL, name TEXT NOT NULL, priority REAL, rank REAL NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL, stage TEXT NOT NULL, state TEXT,
    holders TEXT NOT NULL DEFAULT '', review_state TEXT, arrives_at TEXT, version TEXT, body TEXT NOT NULL);
CREATE INDEX tasks_queue ON tasks (project_id, stage, rank, seq);
CREATE INDEX tasks_all ON tasks (project_id, rank, seq);
CREATE INDEX tasks_name ON tasks (project_id, name);
CREATE INDEX tasks_due ON tasks (arrives_at) WHERE arrives_at IS NOT NULL;
CREATE TABLE versions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, td_id TEXT NOT NULL UNIQUE, task_id TEXT NOT NULL, stage TEXT NOT NULL,
    created_at TEXT NOT NULL, created_by TEXT NOT NULL, labels TEXT NOT NULL, labels_path TEXT,
    labels_map TEXT NOT NULL, sub_name TEXT);
CREATE INDEX versions_task ON versions (task_id);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, task_id TEXT NOT NULL, kind TEXT NOT NULL,
    at TEXT NOT NULL, actor TEXT NOT NULL, version TEXT, data TEXT NOT NULL);
CREATE INDEX events_task ON events (task_id, seq);
CREATE TABLE completions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL, project_id TEXT NOT NULL, stage TEXT NOT NULL,
    user TEXT NOT NULL, at TEXT NOT NULL, review_state TEXT, time_ms INTEGER NOT NULL, cycle INTEGER NOT NULL);
CREATE INDEX completions_stage ON completions (project_id, stage, task_id, seq);
CREATE INDEX completions_task ON completions (task_id);
CREATE TABLE files (path TEXT PRIMARY KEY, content BLOB NOT NULL, type TEXT NOT NULL, encoding TEXT);
"""
_CACHED_RECORDS = 1000
_TABLE_NAMES = ("projects", "datapoints", "tasks", "versions", "events", "completions", "files")
_NAMESPACE = uuid.UUID("0a9c6e10-5b1d-4c8e-9f00-00000000ffff").bytes
# The two high bits of the first digit of a UUID's fourth group are fixed.
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


class Record(NamedTuple):
    """A task as stored: its state and the data around it.

    `version` is the tdId of its newest labels.
    """

    task: Task
    seq: int
    project_id: str
    dp_id: str
    name: str
    priority: float | None
    created_at: str
    version: str | None


def holders_text(task: Task) -> str:
    """Return the assignees as text in which a query can find a single one."""
    return f",{','.join(task.holders)}," if task.works else ""


def body_of(task: Task) -> str:
    """Return the fields of a task that no query uses, as JSON."""
    return write(
        {
            "works": [work._asdict() for work in task.works],
            "heading": task.heading,
            "goes_back": task.goes_back,
            "pre_assign": dict(task.pre_assign),
            "labelers": dict(task.labelers),
            "cycle": task.cycle,
        }
    )


def record_of(row: sqlite3.Row) -> Record:
    """Return the task of a row of the tasks table."""
    # Unpack by position: access by name searches the columns each time.
    seq, task_id, project_id, dp_id, name, priority, _, created_at, updated_at, *state, version, text = row
    stage, status, _, review_state, arrives_at = state
    body = read(text)
    task = Task(
        task_id,
        stage,
        status,
        tuple(Work(**work) for work in body["works"]),
        updated_at,
        body["heading"],
        arrives_at,
        body["goes_back"],
        {stage: tuple(users) for stage, users in body["pre_assign"].items()},
        {stage: tuple(users) for stage, users in body["labelers"].items()},
        review_state,
        body["cycle"],
    )
    return Record(task, seq, project_id, dp_id, name, priority, created_at, version)


class _Write(NamedTuple):
    at: float
    statement: str
    values: list[tuple[Any, ...]]


class _Copy:
    """A store that repeats the writes of another one later, and the writes that it has not repeated yet."""

    def __init__(self, store: Store, machine_time: Callable[[], float]) -> None:
        self.store = store
        self.log: deque[_Write] = deque()
        self._machine_time = machine_time

    def record(self, statement: str, values: list[tuple[Any, ...]]) -> None:
        self.log.append(_Write(self._machine_time(), statement, values))


class Store:
    """A SQLite database, in memory unless a path is given. Not thread-safe."""

    def __init__(self, path: str | None = None) -> None:
        # Cache of next_number. A query each time would cost half as much as a write.
        self._numbers: dict[str, int] = {}
        # Cache of task, because each step of a task reads it again.
        self._records: dict[str, Record] = {}
        self._copy: _Copy | None = None
        self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        # Numbers and tasks are cached: two servers on the same file would not see each other's writes.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        # Losing the last writes in a power failure is acceptable for a sandbox.
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = WAL")
        tables = {row["name"] for row in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            self._db.executescript(_TABLES)
        elif not tables.issuperset(_TABLE_NAMES):
            raise sqlite3.DatabaseError("the file is the database of another program")
        elif not self.rows("SELECT 1 FROM pragma_table_info('versions') WHERE name = 'sub_name'"):
            # A database from before the column was added.
            self._db.execute("ALTER TABLE versions ADD COLUMN sub_name TEXT")

    def close(self) -> None:
        """Close the database and its copy."""
        self.stop_copy()
        self._db.close()

    def clear(self) -> None:
        """Delete all data and reset the numbers from which ids are derived."""
        with self.savepoint():
            for name in _TABLE_NAMES:
                self._execute(f"DELETE FROM {name}", ())  # noqa: S608 - constants of the code
            self._execute("DELETE FROM sqlite_sequence", ())
        self._clear_caches()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Roll back all writes in the block if it raises an exception."""
        self._db.execute("SAVEPOINT step")
        recorded = self._copy.log[-1] if self._copy and self._copy.log else None
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK TO step")
            self._clear_caches()
            while self._copy and self._copy.log and self._copy.log[-1] is not recorded:
                self._copy.log.pop()
            raise
        finally:
            self._db.execute("RELEASE step")

    def _clear_caches(self) -> None:
        self._numbers.clear()
        self._records.clear()

    def rows(self, query: str, values: Iterable[Any] = ()) -> list[sqlite3.Row]:
        """Return all rows of a query.

        :param query: SQL with placeholders.
        :param values: values of the placeholders.
        """
        return self._db.execute(query, tuple(values)).fetchall()

    def row(self, query: str, values: Iterable[Any] = ()) -> sqlite3.Row | None:
        """Return the first row of a query, or None.

        :param query: SQL with placeholders.
        :param values: values of the placeholders.
        """
        found: sqlite3.Row | None = self._db.execute(query, tuple(values)).fetchone()
        return found

    def run(self, statement: str, values: Iterable[Any] = ()) -> int:
        """Run a statement.

        :param statement: SQL with placeholders.
        :param values: values of the placeholders.
        :return: the number of affected rows.
        """
        self._records.clear()
        return self._execute(statement, tuple(values)).rowcount

    def _execute(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        if self._copy:
            self._copy.record(statement, [values])
        return self._db.execute(statement, values)

    def insert(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Insert rows.

        :param table: name of the table.
        :param rows: values by column. All rows have the same columns.
        """
        rows = list(rows)
        if not rows:
            return
        statement, values = _insertion(table, tuple(rows[0])), [tuple(row.values()) for row in rows]
        if self._copy:
            self._copy.record(statement, values)
        self._db.executemany(statement, values)
        if table in self._numbers:
            self._numbers[table] += len(rows)

    def put_file(self, path: str, content: bytes, kind: str, encoding: str | None) -> None:
        """Store a file, or replace the one at the same path.

        :param path: path of the file.
        :param content: the bytes.
        :param kind: content type.
        :param encoding: content encoding, if any.
        """
        self._db.execute(
            "INSERT OR REPLACE INTO files (path, content, type, encoding) VALUES (?, ?, ?, ?)",
            (path, content, kind, encoding),
        )

    def next_number(self, table: str) -> int:
        """Return the sequence number of the next row of a table."""
        if table not in self._numbers:
            found = self.row("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
            self._numbers[table] = int(found["seq"]) if found else 0
        return self._numbers[table] + 1

    # -- the copy that lags --------------------------------------------------------------------

    def start_copy(self, machine_time: Callable[[], float]) -> None:
        """Keep a copy that can be read as of an earlier time. It begins with the present state.

        :param machine_time: returns the time of a write, in seconds.
        """
        if self._copy is None:
            self._copy = _Copy(Store(), machine_time)
            self._db.backup(self._copy.store._db)
            # Storage does not lag, and files are large.
            self._copy.store.run("DELETE FROM files")

    def stop_copy(self) -> None:
        """Drop the copy, if there is one."""
        if self._copy is not None:
            self._copy.store.close()
            self._copy = None

    def as_of(self, moment: float) -> Store:
        """Return the copy as it was at an earlier time, in seconds; without a copy, this store.

        Writes up to that time are no longer kept. An even earlier state cannot be read afterwards.
        """
        if self._copy is None:
            return self
        store, log = self._copy.store, self._copy.log
        while log and log[0].at <= moment:
            write = log.popleft()
            store._db.executemany(write.statement, write.values)
            store._records.clear()
        return store

    # -- tasks ---------------------------------------------------------------------------------

    def task(self, project_id: str, task_id: str) -> Record | None:
        """Return a task, or None if the project has no such task.

        :param project_id: the project.
        :param task_id: the task.
        """
        record = self._records.get(task_id)
        if record is None:
            found = self.row("SELECT * FROM tasks WHERE task_id = ?", (task_id,))
            if found is None:
                return None
            record = self._cache(record_of(found))
        return record if record.project_id == project_id else None

    def _cache(self, record: Record) -> Record:
        if len(self._records) >= _CACHED_RECORDS:
            self._records.clear()
        self._records[record.task.task_id] = record
        return record

    def due(self, now: str) -> list[Record]:
        """Return the tasks whose time of arrival has come."""
        query = "SELECT * FROM tasks WHERE arrives_at IS NOT NULL AND arrives_at <= ? ORDER BY arrives_at, seq"
        return [record_of(row) for row in self.rows(query, (now,))]

    def write(self, record: Record) -> None:
        """Update a stored task after a step."""
        task = record.task
        self._execute(
            "UPDATE tasks SET stage = ?, state = ?, holders = ?, review_state = ?, arrives_at = ?, updated_at = ?,"
            " version = ?, body = ? WHERE task_id = ?",
            (
                task.stage,
                task.state,
                holders_text(task),
                task.review_state,
                task.arrives_at,
                task.updated_at,
                record.version,
                body_of(task),
                task.task_id,
            ),
        )
        self._cache(record)

    def remember(self, project_id: str, task_id: str, facts: Iterable[Fact], version: str | None) -> None:
        """Append facts to the audit trail and to the completions.

        :param project_id: the project of the task.
        :param task_id: the task.
        :param facts: the facts, in order.
        :param version: tdId of the task's labels at that time.
        """
        first = self.next_number("events")
        events, completions = facts_as_rows(project_id, task_id, facts, version, first)
        self.insert("events", events)
        self.insert("completions", completions)


@cache
def _insertion(table: str, columns: tuple[str, ...]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - constants of the code


def make_id(kind: str, number: int) -> str:
    """Return the id of an object: a UUID that is the same on each start.

    :param kind: kind of the object.
    :param number: sequence number of the object.
    """
    # Equivalent to uuid.uuid5, which takes ten times as long. Each step of a task creates several ids.
    text = hashlib.sha1(_NAMESPACE + f"{kind}:{number}".encode(), usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


def facts_as_rows(
    project_id: str, task_id: str, facts: Iterable[Fact], version: str | None, first: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Convert facts to rows of the events and completions tables.

    :param project_id: the project of the task.
    :param task_id: the task.
    :param facts: the facts, in order.
    :param version: tdId of the task's labels at that time.
    :param first: sequence number of the first event.
    :return: the events and the completions.
    """
    events: list[dict[str, Any]] = []
    completions: list[dict[str, Any]] = []
    for fact in facts:
        if fact.kind == "done":
            done = {"task_id": task_id, "project_id": project_id, "user": fact.actor, "at": fact.at}
            completions.append({**done, **fact.data})
            continue
        events.append(
            {
                "event_id": make_id("event", first + len(events)),
                "task_id": task_id,
                "kind": fact.kind,
                "at": fact.at,
                "actor": fact.actor,
                "version": version,
                "data": write(fact.data),
            }
        )
    return events, completions


def write(value: Any) -> str:
    """Serialize a value as compact JSON."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # orjson rejects integers beyond 64 bits, lone surrogates, and very deep nesting.
        return json.dumps(value, separators=(",", ":"))


def given(text: Any, what: str) -> Any:
    """Parse JSON text from a client.

    :param text: the text.
    :param what: name of the argument, for the message.
    :raises RefusalError: if the text is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise RefusalError(f"{what} is not JSON: {error}") from None


def read(text: str) -> Any:
    """Parse stored JSON, which has no integers beyond 64 bits."""
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)
