"""Flow runs and task runs, each with its states and tallies in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.commands.scheduling import key_of
from runstate.database import bulk
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.database.queries import tallies
from runstate.database.queries.tallies import TallyKey
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import RunKind
from runstate.imports.histories import by_run, entered, lost_state, numbered, state_row
from runstate.imports.table import Columns, Extra, Field, Raw, Table
from runstate.imports.tables import ACTOR, FLAG, LIST, OBJECT, TEXT, TIME, reference
from runstate.imports.values import document, json, seconds, uuid
from runstate.rows import (
    Deployment,
    DeploymentSchedule,
    Flow,
    FlowRun,
    FlowRunState,
    TaskRun,
    TaskRunState,
    WorkQueue,
)

if TYPE_CHECKING:
    from runstate.imports.importer import Importer
    from runstate.imports.source import Source

Pairs = list[tuple[Raw, Columns]]
STATE: Final = (
    *("id", "created", "updated", "type", "name", "message", "timestamp", "state_details", "data"),
    "result_artifact_id",
)
MADE: Final = ("key", "type", "description", "data")
"""Columns of the artifact that holds the data of a state."""
SCHEDULE: Final = "SCHEDULE"
"""Type of the creator of a run of a schedule."""


def flow_policy(value: Any) -> Any:
    """Return the policy of a flow run in our form."""
    delay = value.get("retry_delay")
    return {
        "retries": value.get("retries"),
        "retry_delay_seconds": value.get("retry_delay_seconds") if delay is None else delay,
        "pause_keys": sorted(value.get("pause_keys") or ()),
        "resuming": bool(value.get("resuming")),
        "retry_type": value.get("retry_type"),
    }


def task_policy(value: Any) -> Any:
    """Return the policy of a task run in our form: the delay of the reference is a number or a list."""
    delay = value.get("retry_delay")
    delay = value.get("retry_delay_seconds") if delay is None else delay
    delays = delay if isinstance(delay, list) or delay is None else [delay]
    return {
        "retries": value.get("retries"),
        "retry_delays_seconds": delays,
        "retry_jitter_factor": value.get("retry_jitter_factor"),
    }


def schedule_of(value: Any) -> UUID | None:
    """Return the id of the schedule that created a run."""
    creator = json(value)
    return uuid(creator["id"]) if creator and creator.get("type") == SCHEDULE and creator.get("id") else None


def rekey(importer: Importer, raw: Raw, row: Columns) -> None:
    """Give a run of a schedule the key that our scheduler would give it, so that its date is not created again."""
    schedule, date = row["deployment_schedule_id"], row["expected_start_time"]
    if schedule and date and str(row["idempotency_key"] or "").startswith(f"scheduled {raw['deployment_id']} "):
        row["idempotency_key"] = key_of(schedule, date)


async def attach_to_flow_runs(importer: Importer, connection: AsyncConnection | None, pairs: Pairs) -> list[Extra]:
    """Complete flow runs by their states; return the states."""
    states = await _states(importer, FLOW_RUNS, pairs, "flow_run_state", "flow_run_id")
    return [Extra(FlowRunState, states)] if states else []


async def attach_to_task_runs(importer: Importer, connection: AsyncConnection | None, pairs: Pairs) -> list[Extra]:
    """Complete task runs by their states; return the states."""
    await _distinguish(importer, connection, pairs)
    states = await _states(importer, TASK_RUNS, pairs, "task_run_state", "task_run_id")
    return [Extra(TaskRunState, states)] if states else []


async def _states(importer: Importer, table: Table, pairs: Pairs, name: str, owner: str) -> list[Columns]:
    # Runs of a page have neighbouring ids, so one range of the index has all their states.
    first, last = pairs[0][0]["id"], pairs[-1][0]["id"]
    found = await importer.source.rows(_query(importer.source, name, owner), first=first, last=last)
    names = (*STATE, owner, *(f"artifact_{each}" for each in MADE))
    raws = [dict(zip(names, each, strict=True)) for each in found]
    histories = dict(by_run(raws, owner))
    states: list[Columns] = []
    for raw, row in pairs:
        history = _history(importer, table, raw, row, histories.get(row["id"], []))
        row.update(entered(row, history))
        states += history
    return states


def _history(importer: Importer, table: Table, raw: Raw, row: Columns, raws: list[Raw]) -> list[Columns]:
    """Return the states of a run in order. A run whose states are lost gets the one that it tells."""

    def remark(text: str, name: object) -> None:
        importer.report.remark(f"{table.name}_state", text, name)

    if not raws and raw["state_type"]:
        importer.report.remark(table.name, "imported with one state, because its history is lost", row["id"])
        raws_of_run = [lost_state(raw, row["id"], row["updated"])]
    else:
        raws_of_run = [state_row(each, row["id"], remark) for each in raws]
    current = uuid(raw["state_id"]) if raw["state_id"] else None
    return numbered(raws_of_run, current, remark)


def _query(source: Source, name: str, owner: str) -> Any:
    """Return the query for the states of a page of runs, each with the artifact that holds its data."""
    own, made = source.selected(name, (*STATE, owner)), source.selected("artifact", MADE)
    state, artifact = source.tables[name], source.tables["artifact"]
    joined = state.outerjoin(artifact, artifact.c.id == state.c.result_artifact_id)
    within = (state.c[owner] >= sa.bindparam("first")) & (state.c[owner] <= sa.bindparam("last"))
    return sa.select(*own, *made).select_from(joined).where(within).order_by(state.c[owner], state.c.timestamp)


async def write_flow_runs(importer: Importer, connection: AsyncConnection, rows: list[Columns]) -> None:
    """Insert flow runs and count them."""
    await bulk.load(connection, FlowRun, rows)
    groups = {row["id"]: (row["flow_id"], row["deployment_id"]) for row in rows}
    await _count(connection, RunKind.FLOW_RUN, rows, groups, "id")


async def write_task_runs(importer: Importer, connection: AsyncConnection, rows: list[Columns]) -> None:
    """Insert task runs and count them by the flow and deployment of their flow run."""
    await bulk.load(connection, TaskRun, rows)
    parents = {row["flow_run_id"] for row in rows} - {None}
    asked = sa.select(FlowRun.id, FlowRun.flow_id, FlowRun.deployment_id).where(among(FlowRun.id, sorted(parents)))
    groups = {key: (flow, deployment) for key, flow, deployment in await connection.execute(asked)}
    await _count(connection, RunKind.TASK_RUN, rows, groups, "flow_run_id")


async def _count(
    connection: AsyncConnection, kind: RunKind, rows: list[Columns], groups: Mapping[Any, Any], by: str
) -> None:
    # Counts are sums of changes: rows that are loaded without them would be missing in every count.
    changes: Counter[TallyKey] = Counter()
    for row in rows:
        flow, deployment = groups.get(row[by], (None, None))
        changes[TallyKey(kind, flow, deployment, row["state_type"], row["state_name"])] += 1
    await bulk.write(connection, [await tallies.added(connection, changes)])


async def _distinguish(importer: Importer, connection: AsyncConnection | None, pairs: Pairs) -> None:
    """Change the dynamic keys of task runs without a flow run that others have: they need not be unique there."""
    alone = [row for _, row in pairs if row["flow_run_id"] is None]
    if not alone:
        return
    taken: set[tuple[str, str]] = set()
    if connection is not None:
        asked = sa.select(TaskRun.task_key, TaskRun.dynamic_key).where(
            TaskRun.flow_run_id.is_(None), among(TaskRun.task_key, sorted({row["task_key"] for row in alone}))
        )
        taken = {(task, dynamic) for task, dynamic in await connection.execute(asked)}
    for row in alone:
        if (row["task_key"], row["dynamic_key"]) in taken:
            importer.report.remark("task_run", "imported with another dynamic key, because its key is taken", row["id"])
            # Unique, and the same in a second import.
            row["dynamic_key"] = f"{row['dynamic_key']}-{row['id']}"
        taken.add((row["task_key"], row["dynamic_key"]))


async def link_subflows(importer: Importer) -> None:
    """Set the task runs that represent subflow runs, once these exist."""
    if importer.dry_run:
        return
    table = table_of(FlowRun)
    async for page in importer.source.pages("flow_run", ("id", "parent_task_run_id"), importer.page):
        wanted = {uuid(key): uuid(parent) for key, parent in page if parent is not None}
        async with importer.connection() as connection:
            assert connection is not None  # noqa: S101 this is no dry run
            known = await importer.present(connection, TaskRun, set(wanted.values()))
            # Flow runs and task runs refer to each other, so one of the references is written afterwards.
            asked = sa.select(table.c.id).where(among(table.c.id, sorted(wanted)), table.c.parent_task_run_id.is_(None))
            unlinked = (await connection.execute(asked)).scalars()
            rows = [
                FlowRun.of({"id": key, "parent_task_run_id": wanted[key]}) for key in unlinked if wanted[key] in known
            ]
            await bulk.write(connection, [bulk.updated(FlowRun, ("parent_task_run_id",), rows)])


RUN: Final = {
    "name": TEXT,
    "tags": LIST,
    "labels": OBJECT,
    "run_count": Field(int, default=0),
    "expected_start_time": TIME,
    "next_scheduled_start_time": TIME,
    "start_time": TIME,
    "end_time": TIME,
    "total_run_time_seconds": Field(seconds, "total_run_time", 0.0),
}
CURRENT: Final = ("state_id", "state_type", "state_name", "state_timestamp")
STATELESS: Final[dict[str, Any]] = dict.fromkeys(CURRENT) | {
    "version": 0,
    "heartbeat_seconds": None,
    "last_answer": None,
}
FLOW_RUNS: Final = Table(
    "flow_run",
    FlowRun,
    RUN
    | {
        "flow_id": reference(Flow, needed=True),
        "deployment_id": reference(Deployment),
        "parameters": OBJECT,
        "context": OBJECT,
        "policy": Field(document(FlowRunPolicy, flow_policy), "empirical_policy", FlowRunPolicy()),
        "idempotency_key": TEXT,
        "infrastructure_pid": TEXT,
        "flow_version": TEXT,
        "work_queue_name": TEXT,
        "work_queue_id": reference(WorkQueue),
        "auto_scheduled": FLAG,
        "created_by": Field(ACTOR),
        "deployment_schedule_id": Field(schedule_of, "created_by", refers=DeploymentSchedule),
        "deployment_version": TEXT,
        "job_variables": OBJECT,
    },
    STATELESS | {"parent_task_run_id": None, "claim_id": None, "claim_count": 0, "expired_claims": 0},
    key=("flow_id", "idempotency_key"),
    further=CURRENT,
    finish=rekey,
    attach=attach_to_flow_runs,
    write=write_flow_runs,
    compared="state_id",
)
TASK_RUNS: Final = Table(
    "task_run",
    TaskRun,
    RUN
    | {
        "flow_run_id": reference(FlowRun, needed=True),
        "task_key": TEXT,
        "dynamic_key": TEXT,
        "cache_key": TEXT,
        "task_version": TEXT,
        "policy": Field(document(TaskRunPolicy, task_policy), "empirical_policy", TaskRunPolicy()),
        "task_inputs": OBJECT,
        "flow_run_run_count": Field(int, default=0),
    },
    STATELESS,
    key=("flow_run_id", "task_key", "dynamic_key"),
    further=CURRENT,
    attach=attach_to_task_runs,
    write=write_task_runs,
    compared="state_id",
)
