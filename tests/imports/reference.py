"""A small database of Prefect 3.8.5 with rows of every kind, on SQLite or PostgreSQL."""

import functools
import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import sqlalchemy as sa
from cryptography.fernet import Fernet

TABLES: Final = Path(__file__).with_name("prefect_tables.sql").read_text()
THEN: Final = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
KEY: Final = Fernet.generate_key().decode()
KINDS: Final = {
    "CHAR(36)": "uuid",
    "DATETIME": "timestamptz",
    "JSON": "jsonb",
    "BOOLEAN": "boolean",
    "INTEGER": "integer",
    "SMALLINT": "smallint",
    "FLOAT": "double precision",
    "TEXT": "text",
}
"""Types of columns on PostgreSQL; names of states are an enumeration there, and the others are texts."""
POLICY: Final = {"max_retries": 0, "retry_delay_seconds": 0.0, "retries": 2, "retry_delay": 5, "pause_keys": ["b", "a"]}


def at(**span: float) -> datetime:
    """Return a time some time after `THEN`."""
    return THEN + timedelta(**span)


@dataclass
class Reference:
    """The rows of a database, by table."""

    rows: defaultdict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    ids: int = 0

    def id(self) -> UUID:
        """Return a new id of version 4, greater than those before it."""
        self.ids += 1
        return UUID(int=self.ids << 96 | 0x4000 << 64 | 0x8000 << 48 | self.ids)

    def add(self, table: str, **columns: Any) -> UUID:
        """Add a row; return its id."""
        row = {"id": self.id(), "created": THEN, "updated": at(seconds=1)} | columns
        self.rows[table].append(row)
        return UUID(str(row["id"]))

    def state(self, table: str, run: UUID, type: str, **columns: Any) -> UUID:
        """Add a state of a run; return its id."""
        owner = "flow_run_id" if table == "flow_run" else "task_run_id"
        given = {"type": type, "name": type.capitalize(), "timestamp": THEN, "state_details": {owner: str(run)}}
        return self.add(f"{table}_state", **given | {owner: run} | columns)

    def run(self, table: str, *types: str, **columns: Any) -> UUID:
        """Add a run that went through states, one a second; return its id."""
        run = columns.pop("id", None) or self.id()
        states = [self.state(table, run, each, timestamp=at(seconds=n)) for n, each in enumerate(types)]
        current = (
            {"state_id": states[-1], "state_type": types[-1], "state_name": types[-1].capitalize()} if types else {}
        )
        times = {
            "expected_start_time": THEN,
            "start_time": at(seconds=1),
            "state_timestamp": at(seconds=len(types) - 1),
        }
        common = {"name": "a-run", "run_count": 1, "total_run_time": timedelta(seconds=1.5), "tags": [], "labels": {}}
        policy = {"empirical_policy": POLICY if table == "flow_run" else {"retries": 1, "retry_delay": [1, 2]}}
        if table == "flow_run":
            common |= {"parameters": {"x": 1}, "context": {}, "job_variables": {}, "auto_scheduled": False}
        else:
            common |= {"task_key": "task", "task_inputs": {}, "flow_run_run_count": 1}
        return self.add(table, id=run, **common | policy | current | (times if types else {}) | columns)

    def to_sqlite(self, file: Path, *, indexed: bool = False) -> str:
        """Write the database to a file, with the indexes that an import of many rows needs; return its path."""
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(TABLES)
            for run in ("flow_run", "task_run") if indexed else ():
                connection.execute(f"CREATE INDEX ix_{run}_state ON {run}_state ({run}_id, timestamp)")
            for table, rows in self.rows.items():
                for row in rows:
                    names = ", ".join(f'"{name}"' for name in row)
                    marks = ", ".join("?" * len(row))
                    kinds = _kinds(table)
                    values = [_of_sqlite(kinds[name], value) for name, value in row.items()]
                    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)  # noqa: S608 ours
            connection.commit()
        return str(file)

    async def to_postgresql(self, url: str) -> str:
        """Write the tables and rows into a database; return its URL."""
        address = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(address)
        try:
            await connection.execute(
                "CREATE TYPE state_type AS ENUM ('SCHEDULED', 'PENDING', 'RUNNING', 'COMPLETED',"
                " 'FAILED', 'CANCELLED', 'CRASHED', 'PAUSED', 'CANCELLING')"
            )
            for name in re.findall(r"CREATE TABLE (\w+)", TABLES):
                columns = ", ".join(f'"{each}" {_of_postgresql(each, kind)}' for each, kind in _kinds(name).items())
                await connection.execute(f"CREATE TABLE {name} ({columns})")
            for table, rows in self.rows.items():
                kinds = _kinds(table)
                for row in rows:
                    values = [json.dumps(v) if kinds[k] == "JSON" else v for k, v in row.items()]
                    await connection.copy_records_to_table(table, columns=list(row), records=[values])
        finally:
            await connection.close()
        return url


@functools.cache
def _kinds(table: str) -> Mapping[str, str]:
    found = re.search(rf"CREATE TABLE {table} \((.*)\);", TABLES)
    assert found
    return dict(re.findall(r'"(\w+)" ([A-Z]+(?:\(\d+\))?)', found[1]))


def _of_postgresql(name: str, kind: str) -> str:
    if name == "total_run_time":
        return "interval"
    return "state_type" if name == "state_type" else KINDS.get(kind, "varchar")


def _of_sqlite(kind: str, value: Any) -> Any:
    if kind == "JSON":
        return json.dumps(value)
    if isinstance(value, timedelta):
        value = EPOCH + value
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    return str(value) if isinstance(value, UUID) else value


@dataclass
class Filled:
    """A database with rows of every kind, and the ids of those that tests ask for."""

    reference: Reference
    ids: dict[str, UUID]


def filled() -> Filled:
    """Return a database with rows of every kind."""
    made, ids = Reference(), dict[str, UUID]()
    _settings(made, ids)
    _deployments(made, ids)
    _runs(made, ids)
    _of_runs(made, ids)
    _automations(made, ids)
    made.add("agent", name="old")
    made.add("events", occurred=THEN, event="prefect.flow-run.Completed", resource_id="x", resource={}, payload={})
    return Filled(made, ids)


def _settings(made: Reference, ids: dict[str, UUID]) -> None:
    made.add("configuration", key="ENCRYPTION_KEY", value={"fernet_key": KEY})
    made.add("variable", name="v", value={"a": [1, None]}, tags=["t"])
    made.add("variable", name="number", value=5, tags=[])
    condition = {"object": "flow_run", "property": "state", "type": "string", "operation": "equals", "value": "FAILED"}
    made.add("saved_search", name="failed", filters=[condition])
    kind = made.add("block_type", name="Secret thing", slug="secret-thing", is_protected=False)
    fields = {"secret_fields": ["token"], "properties": {"token": {"type": "string"}}}
    schema = made.add(
        "block_schema", block_type_id=kind, checksum=f"sha256:{'0' * 64}", fields=fields, capabilities=[], version="1"
    )
    made.add("block_schema_reference", name="inner", parent_block_schema_id=schema, reference_block_schema_id=schema)
    ids["block"], nested = (_block(made, kind, schema, name) for name in ("outer", "inner"))
    made.add(
        "block_document_reference",
        name="inner",
        parent_block_document_id=ids["block"],
        reference_block_document_id=nested,
    )


def _block(made: Reference, kind: UUID, schema: UUID, name: str) -> UUID:
    data = Fernet(KEY.encode()).encrypt(json.dumps({"token": f"secret of {name}"}).encode()).decode()
    return made.add(
        "block_document",
        name=name,
        data=data,
        is_anonymous=False,
        block_type_id=kind,
        block_type_name="Secret thing",
        block_schema_id=schema,
    )


def _deployments(made: Reference, ids: dict[str, UUID]) -> None:
    ids["pool"], ids["queue"] = made.id(), made.id()
    made.add(
        "work_pool",
        id=ids["pool"],
        name="pool",
        type="process",
        base_job_template={},
        is_paused=False,
        concurrency_limit=3,
        default_queue_id=ids["queue"],
        storage_configuration={},
    )
    made.add("work_queue", id=ids["queue"], work_pool_id=ids["pool"], name="default", priority=1, is_paused=True)
    made.add("worker", work_pool_id=ids["pool"], name="w", last_heartbeat_time=THEN)
    ids["flow"] = made.add("flow", name="etl", tags=["f"], labels={"k": "v"})
    ids["deployment"], ids["limit"] = made.id(), made.id()
    common = {"flow_id": ids["flow"], "parameters": {"x": 2}, "infra_overrides": {"env": {}}, "pull_steps": None}
    common |= {"tags": ["d"], "enforce_parameter_schema": True, "labels": {}, "work_queue_id": ids["queue"]}
    options = {"collision_strategy": "CANCEL_NEW"}
    more = {"paused": False, "concurrency_limit_id": ids["limit"], "concurrency_options": options}
    made.add("deployment", id=ids["deployment"], name="daily", **common, **more)
    asleep = made.add("deployment", name="asleep", **common, paused=True, storage_document_id=made.id())
    own = f"deployment:{ids['deployment']}"
    for key, name, slots in ((ids["limit"], own, 1), (made.id(), "tag:db", 1), (made.id(), "shared", 2)):
        made.add(
            "concurrency_limit_v2",
            id=key,
            name=name,
            limit=4,
            active=True,
            active_slots=slots,
            slot_decay_per_second=0.0,
            avg_slot_occupancy_seconds=2.5,
        )
    made.add("concurrency_limit", tag="db", concurrency_limit=9, active_slots=[])
    made.add("concurrency_limit", tag="web", concurrency_limit=9, active_slots=[])
    schedules = (
        {"cron": "0 5 * * *", "timezone": "Europe/Berlin", "day_or": True},
        {"interval": 3600.0, "anchor_date": "2026-01-01T00:00:00Z", "timezone": "UTC"},
        {"rrule": "FREQ=DAILY", "timezone": None},
    )
    ids["schedule"], *_ = (
        made.add("deployment_schedule", deployment_id=ids["deployment"], schedule=each, active=True, parameters={})
        for each in schedules
    )
    made.add("deployment_schedule", deployment_id=asleep, schedule=schedules[0], active=True, parameters={}, slug="s")


def _runs(made: Reference, ids: dict[str, UUID]) -> None:
    flow, of_deployment = {"flow_id": ids["flow"]}, {"flow_id": ids["flow"], "deployment_id": ids["deployment"]}
    ids["run"] = made.run("flow_run", "SCHEDULED", "PENDING", "RUNNING", "COMPLETED", **of_deployment)
    result = made.add("artifact", data={"storage_key": "k"}, flow_run_id=ids["run"], metadata_=None)
    made.rows["flow_run_state"][-1]["result_artifact_id"] = result
    ids["task"] = made.run("task_run", "PENDING", "RUNNING", "COMPLETED", flow_run_id=ids["run"], dynamic_key="0")
    ids["holder"] = made.run("flow_run", "PENDING", "RUNNING", **of_deployment)
    made.run("task_run", "RUNNING", flow_run_id=ids["holder"], dynamic_key="0", tags=["db"])
    ids["subflow"] = made.run("flow_run", "COMPLETED", **flow, parent_task_run_id=ids["task"])
    creator = {"id": str(ids["schedule"]), "type": "SCHEDULE", "display_value": "CronSchedule"}
    ids["planned"] = made.run(
        "flow_run",
        "SCHEDULED",
        **of_deployment,
        auto_scheduled=True,
        created_by=creator,
        idempotency_key=f"scheduled {ids['deployment']} {ids['schedule']} 2026-05-06 07:08:09+00:00",
        next_scheduled_start_time=THEN,
    )
    ids["going back"] = made.run("flow_run", "RUNNING", "FAILED", **flow)
    older = made.state("flow_run", ids["going back"], "CRASHED", timestamp=at(seconds=-5))
    made.rows["flow_run"][-1] |= {"state_id": older, "state_type": "CRASHED", "state_name": "Crashed"}
    ids["without history"] = made.run("flow_run", "COMPLETED", **flow, deployment_id=made.id())
    made.rows["flow_run_state"].pop()
    ids["without state"] = made.run("flow_run", **flow)
    for _ in range(2):
        ids["background"] = made.run("task_run", "SCHEDULED", dynamic_key="same", flow_run_id=None)


def _of_runs(made: Reference, ids: dict[str, UUID]) -> None:
    made.add("flow_run_input", flow_run_id=ids["run"], key="answer", value='{"a": 1}')
    made.add("flow_run_input", flow_run_id=ids["run"], key="text", value="no JSON")
    latest = made.id()
    report = {"key": "report", "type": "markdown", "data": "# Two", "description": "d", "flow_run_id": ids["run"]}
    made.add("artifact_collection", latest_id=latest, **report)
    made.add("artifact", **report | {"data": "# One"}, metadata_={"a": "b"})
    made.add("artifact", id=latest, **report)
    cached = made.rows["task_run_state"][2]["id"]
    made.add("task_run_state_cache", cache_key="k" * 300, task_run_state_id=cached)
    made.add("task_run_state_cache", cache_key="gone", task_run_state_id=made.id())
    line = {"name": "prefect.flow_runs", "level": 20, "flow_run_id": ids["run"], "timestamp": THEN}
    made.add("log", **line, message="hello")
    ids["long line"] = made.add("log", **line, message="x" * 100_001)


def _automations(made: Reference, ids: dict[str, UUID]) -> None:
    failed = {
        "id": str(made.id()),
        "type": "event",
        "posture": "Reactive",
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": {"prefect.resource.role": "deployment"},
        "expect": ["prefect.flow-run.Failed"],
        "after": [],
        "for_each": ["related:flow:prefect.resource.id"],
        "threshold": 1,
        "within": 60.0,
    }
    action = {"type": "run-deployment", "source": "selected", "deployment_id": str(ids["deployment"])}
    lists = {"actions_on_trigger": [], "actions_on_resolve": [], "tags": [], "description": "d", "enabled": True}
    ids["automation"] = made.add("automation", name="again", trigger=failed, actions=[action], **lists)
    made.add(
        "automation_related_resource",
        automation_id=ids["automation"],
        resource_id=f"prefect.deployment.{ids['deployment']}",
        automation_owned_by_resource=True,
    )
    made.add("automation", name="unknown", trigger=failed, actions=[{"type": "fly"}], **lists)
