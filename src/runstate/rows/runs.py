"""Flow runs, task runs and their states."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from runstate.documents.base import HeartbeatSeconds, JsonObject, Name, Tags
from runstate.documents.decisions import LastAnswer, StateDecision
from runstate.documents.deployments import Actor
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import FINAL_TYPES, StateDetails, StateType
from runstate.documents.task_inputs import TaskInputs
from runstate.rows.base import (
    CREATE_ONLY,
    JSON,
    NOT_FILTERABLE,
    PRIVATE,
    READ_ONLY,
    DocumentColumn,
    Row,
    Tagged,
    reverse,
)
from runstate.rows.flows import Deployment, Flow
from runstate.rows.pools import WorkQueue
from runstate.rows.schedules import DeploymentSchedule

STATE_TYPE = sa.Enum(StateType, native_enum=False, length=16, name="state_type", create_constraint=False)
"""Stored as text, so that a new type needs no migration."""


HISTORY = "The states that the run has been in; oldest first by default."


class State(Row):
    """One state of one run. Versions count a run's states 1, 2, 3 … in the order in which they were committed."""

    __abstract__ = True
    __order__ = ("version", "id")
    __sorted__ = ("version", "timestamp")  # a run has few states

    type: Mapped[StateType] = mapped_column(STATE_TYPE, doc="Type of the state; rules depend on it.")
    name: Mapped[str] = mapped_column(doc="Name of the state; the type in words by default.")
    message: Mapped[str | None] = mapped_column(doc="Free text for people.")
    timestamp: Mapped[datetime] = mapped_column(
        doc="Time at which the run entered it, by the server's clock; never decreases in a run."
    )
    version: Mapped[int] = mapped_column(doc="Number of the state in the run's history, from 1, without gaps.")
    data: Mapped[Any | None] = mapped_column(doc="The result, or a reference to it.")
    details: Mapped[StateDetails] = mapped_column(
        DocumentColumn(StateDetails), info=NOT_FILTERABLE, doc="Further values that rules and clients read."
    )
    # A column of its own, because `data` can have a megabyte and is not loaded to decide.
    persisted: Mapped[bool] = mapped_column(
        default=False,
        info=PRIVATE,
        doc="True if `data` refers to a persisted result. Rules read this instead of `data`.",
    )
    actor: Mapped[str] = mapped_column(
        default="anonymous", doc="Name of the client that proposed it; `anonymous` without authentication."
    )
    request_id: Mapped[str | None] = mapped_column(doc="Id of the request that proposed it, as in the server's log.")
    decision_record: Mapped[StateDecision | None] = mapped_column(
        DocumentColumn(StateDecision), info=PRIVATE, doc="The decision that wrote it; null for a plain acceptance."
    )
    artifact_id: Mapped[UUID | None] = mapped_column(info=PRIVATE, doc="Id of the artifact that `data` made.")
    late: Mapped[bool] = mapped_column(
        default=False,
        server_default=sa.false(),
        info=NOT_FILTERABLE,
        doc="True if a client reported it when the run was in a newer state already: it only joined the history, with "
        "its own time, and is not in the log of transitions.",
    )

    @property
    def is_final(self) -> bool:
        """Whether the type ends a run: COMPLETED, FAILED, CANCELLED or CRASHED."""
        return self.type in FINAL_TYPES


class Run(Tagged, Row):
    """A flow run or a task run."""

    __abstract__ = True
    # Indexes of columns that each state changes would cost every proposal.
    __sorted__ = ("updated", "state_timestamp", "run_count", "total_run_time_seconds")

    name: Mapped[Name] = mapped_column(doc="Name for people; not unique.")
    tags: Mapped[Tags] = mapped_column(JSON, default=list, doc="Labels to filter by; concurrency limits apply by tag.")
    labels: Mapped[JsonObject] = mapped_column(default=dict, doc="Keys and values to filter by.")
    state_id: Mapped[UUID | None] = mapped_column(info=READ_ONLY, doc="Id of the current state.")
    state_type: Mapped[StateType | None] = mapped_column(STATE_TYPE, info=READ_ONLY, doc="Type of the current state.")
    state_name: Mapped[str | None] = mapped_column(info=READ_ONLY, doc="Name of the current state.")
    state_timestamp: Mapped[datetime | None] = mapped_column(
        info=READ_ONLY, doc="Time at which the current state was entered."
    )
    version: Mapped[int] = mapped_column(default=0, info=READ_ONLY, doc="Version of the current state; 0: none yet.")
    run_count: Mapped[int] = mapped_column(default=0, info=READ_ONLY, doc="Number of times the run entered RUNNING.")
    expected_start_time: Mapped[datetime | None] = mapped_column(
        info=READ_ONLY, doc="Time at which it was first expected to start."
    )
    next_scheduled_start_time: Mapped[datetime | None] = mapped_column(
        info=READ_ONLY, doc="Time at which a SCHEDULED run is due."
    )
    start_time: Mapped[datetime | None] = mapped_column(
        info=READ_ONLY,
        doc="Time at which it first entered RUNNING; the end of a run that `proposeState` ended before that.",
    )
    end_time: Mapped[datetime | None] = mapped_column(info=READ_ONLY, doc="Time at which it entered a final state.")
    total_run_time_seconds: Mapped[float] = mapped_column(
        default=0.0, info=READ_ONLY, doc="Seconds spent in RUNNING, up to the last change of state."
    )
    heartbeat_seconds: Mapped[HeartbeatSeconds | None] = mapped_column(
        doc="Interval in seconds, 1 to 86,400, in which the client of a RUNNING or CANCELLING run sends `heartbeat` or "
        "a proposal. After three intervals without either, the run crashes. Null: it is not monitored."
    )
    last_answer: Mapped[LastAnswer | None] = mapped_column(
        DocumentColumn(LastAnswer),
        info=READ_ONLY | NOT_FILTERABLE,
        doc="The answer to the last proposal that wrote no state, or that rescheduled the run because a limit is full; "
        "the next state clears it.",
    )


def known(table: str, column: str, *further: str) -> sa.Index:
    """Return a partial index on non-null values. Nulls sort last in both directions and are read separately."""
    is_known = sa.text(f"{column} IS NOT NULL")
    name = "_".join(["ix", table, column, *further])
    return sa.Index(name, column, *further, postgresql_where=is_known, sqlite_where=is_known)


def run_rules(table: str) -> tuple[sa.schema.SchemaItem, ...]:
    """Return the constraints and indexes of a table of runs.

    Partial indexes omit nulls, so that a change of state writes no entries for columns that are still null.
    """
    return (
        sa.CheckConstraint("version >= 0", name="version_not_negative"),
        sa.CheckConstraint("run_count >= 0", name="run_count_not_negative"),
        sa.CheckConstraint("total_run_time_seconds >= 0", name="run_time_not_negative"),
        # JSON columns have no index, because every new run would have to maintain it.
        sa.Index(f"ix_{table}_name", "name"),
        sa.Index(f"ix_{table}_created", "created"),
        known(table, "expected_start_time"),
        known(table, "start_time"),
        known(table, "end_time"),
        known(table, "next_scheduled_start_time"),
        sa.Index(f"ix_{table}_state_type_start_time", "state_type", "start_time"),
    )


def only_in(name: str, types: tuple[str, ...], *columns: str) -> sa.Index:
    """Return a partial index of flow runs in states of some types."""
    listed = ", ".join(f"'{each}'" for each in types)
    which = sa.text(f"state_type = {listed}" if len(types) == 1 else f"state_type IN ({listed})")
    return sa.Index(f"ix_flow_run_{name}", *columns, postgresql_where=which, sqlite_where=which)


class FlowRun(Run):
    """One execution of a flow."""

    __tablename__ = "flow_run"

    flow_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(Flow.id, ondelete="CASCADE"), info=CREATE_ONLY, doc="Id of the flow."
    )
    deployment_id: Mapped[UUID | None] = mapped_column(
        # The runs of a deleted deployment are kept.
        sa.ForeignKey(Deployment.id, ondelete="SET NULL"),
        index=True,
        info=CREATE_ONLY,
        doc="Id of the deployment that it was created from.",
    )
    parent_task_run_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey("task_run.id", ondelete="SET NULL", use_alter=True),  # task runs refer to flow runs, too
        index=True,
        info=CREATE_ONLY,
        doc="For a subflow run: id of the task run that represents it in the parent flow run.",
    )
    parameters: Mapped[JsonObject] = mapped_column(default=dict, doc="Arguments of the flow; at most 512 KiB.")
    context: Mapped[JsonObject] = mapped_column(default=dict, doc="Further values of the client; at most 512 KiB.")
    policy: Mapped[FlowRunPolicy] = mapped_column(
        DocumentColumn(FlowRunPolicy),
        default=FlowRunPolicy,
        info=NOT_FILTERABLE,
        doc="Retry policy, with the marks of pausing and retrying. Omitted members keep their value.",
    )
    idempotency_key: Mapped[Name | None] = mapped_column(
        info=CREATE_ONLY, doc="Unique for the flow: a second run with this key is not created."
    )
    infrastructure_pid: Mapped[Name | None] = mapped_column(doc="Id of the process, container or job that runs it.")
    flow_version: Mapped[Name | None] = mapped_column(doc="Version of the flow's code.")
    work_queue_name: Mapped[Name | None] = mapped_column(doc="Name of its work queue.")
    work_queue_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey(WorkQueue.id, ondelete="SET NULL"), info=READ_ONLY, doc="Id of the queue in which it waits."
    )
    auto_scheduled: Mapped[bool] = mapped_column(
        default=False, server_default=sa.false(), info=READ_ONLY, doc="True if the scheduler created it."
    )
    created_by: Mapped[Actor | None] = mapped_column(
        DocumentColumn(Actor),
        info={**READ_ONLY, **NOT_FILTERABLE},
        doc="Origin of the run; for scheduled runs the schedule, displayed by slug or kind.",
    )
    deployment_schedule_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey(DeploymentSchedule.id, ondelete="SET NULL"),
        info=READ_ONLY,
        doc="Id of the schedule that created it.",
    )
    deployment_version: Mapped[str | None] = mapped_column(
        info=READ_ONLY, doc="Version of the deployment when the run was created."
    )
    job_variables: Mapped[JsonObject] = mapped_column(
        default=dict,
        server_default="{}",
        doc="Overrides of the deployment's job variables; {} for scheduled runs.",
    )
    claim_id: Mapped[UUID | None] = mapped_column(
        info=PRIVATE, doc="Id of the claim on it; null if no worker holds it."
    )
    claim_count: Mapped[int] = mapped_column(
        default=0, server_default="0", info=READ_ONLY, doc="Number of times that a worker claimed it."
    )
    expired_claims: Mapped[int] = mapped_column(
        default=0, server_default="0", info=PRIVATE, doc="Number of claims that expired since it last ran."
    )
    cause: Mapped[UUID | None] = mapped_column(
        info=PRIVATE, doc="Id of the firing of an automation that created it or last changed its state; null for none."
    )

    flow: Mapped[Flow] = relationship(
        lazy="raise", info=reverse("flow_runs", "The runs of the flow."), doc="The flow that is run."
    )
    deployment: Mapped[Deployment | None] = relationship(
        lazy="raise",
        info=reverse("flow_runs", "The runs that were created from the deployment."),
        doc="The deployment that it was created from.",
    )
    work_queue: Mapped[WorkQueue | None] = relationship(
        lazy="raise", info=reverse("flow_runs", "Runs of this queue."), doc="The queue in which it waits."
    )
    deployment_schedule: Mapped[DeploymentSchedule | None] = relationship(
        lazy="raise",
        info=reverse("flow_runs", "Runs that the schedule created."),
        doc="The schedule that created it; null if none did or it was deleted.",
    )

    parent_task_run: Mapped["TaskRun | None"] = relationship(
        lazy="raise",
        foreign_keys=[parent_task_run_id],
        info=reverse("child_flow_runs", "The subflow runs that the task run represents."),
        doc="For a subflow run: the task run that represents it in the parent flow run.",
    )

    __table_args__ = (
        sa.UniqueConstraint("flow_id", "idempotency_key"),
        known("flow_run", "deployment_schedule_id"),
        # With the id, by which the runs of a queue are changed in batches.
        known("flow_run", "work_queue_id", "id"),
        # Partial, so that the millions of ended runs have no entries in them. This one: polls of workers.
        only_in("due", ("SCHEDULED",), "work_queue_id", "next_scheduled_start_time", "id"),
        # The slots of queues and pools that are taken.
        only_in("held", ("PENDING", "RUNNING"), "work_queue_id"),
        # The unstarted runs of a deployment, which a pause deletes.
        only_in("unstarted", ("SCHEDULED",), "deployment_id"),
        # The unstarted runs of a schedule, which its changes update or delete.
        only_in("planned", ("SCHEDULED",), "deployment_schedule_id"),
        # The list of a flow's runs, and the latest run of each flow.
        sa.Index(None, "flow_id", "expected_start_time"),
        *run_rules("flow_run"),
    )


# Computed from one entry of an index; a stored value would be written with every run.
_latest = sa.select(sa.func.max(FlowRun.expected_start_time)).where(FlowRun.flow_id == Flow.id).correlate(Flow)
Flow.__computed__ = {"latest_run": _latest.scalar_subquery().label("latest_run")}


class TaskRun(Run):
    """One execution of a task."""

    __tablename__ = "task_run"

    flow_run_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey(FlowRun.id, ondelete="CASCADE"), info=CREATE_ONLY, doc="Id of the flow run that it belongs to."
    )
    task_key: Mapped[Name] = mapped_column(info=CREATE_ONLY, doc="Name of the task in code.")
    dynamic_key: Mapped[Name] = mapped_column(info=CREATE_ONLY, doc="Distinguishes the runs of a task in one flow run.")
    cache_key: Mapped[Name | None] = mapped_column(info=CREATE_ONLY, doc="Key under which its result is cached.")
    task_version: Mapped[Name | None] = mapped_column(doc="Version of the task's code.")
    policy: Mapped[TaskRunPolicy] = mapped_column(
        DocumentColumn(TaskRunPolicy),
        default=TaskRunPolicy,
        info=NOT_FILTERABLE,
        doc="Retry policy. Omitted members keep their value.",
    )
    task_inputs: Mapped[TaskInputs] = mapped_column(
        JSON, default=dict, doc="Origin of each argument: task runs, parameters, constants."
    )
    flow_run_run_count: Mapped[int] = mapped_column(
        default=0, info=READ_ONLY, doc="Run count of the flow run when the task run last entered RUNNING."
    )

    flow_run: Mapped[FlowRun | None] = relationship(
        lazy="raise",
        foreign_keys=[flow_run_id],
        info=reverse("task_runs", "The task runs of the flow run."),
        doc="The flow run that it belongs to.",
    )

    __table_args__ = (
        sa.UniqueConstraint("flow_run_id", "task_key", "dynamic_key"),
        # The key above does not apply to rows with NULL in one of its columns.
        sa.Index(
            "uq_task_run_task_key_dynamic_key",
            "task_key",
            "dynamic_key",
            unique=True,
            postgresql_where=sa.text("flow_run_id IS NULL"),
            sqlite_where=sa.text("flow_run_id IS NULL"),
        ),
        *run_rules("task_run"),
    )


class FlowRunState(State):
    """One state of one flow run."""

    __tablename__ = "flow_run_state"

    run_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(FlowRun.id, ondelete="CASCADE"), info=PRIVATE, doc="Id of the flow run."
    )

    run: Mapped[FlowRun] = relationship(
        lazy="raise", info=reverse("states", HISTORY), doc="The flow run that was in the state."
    )

    __table_args__ = (sa.UniqueConstraint("run_id", "version"), known("flow_run_state", "artifact_id"))


class TaskRunState(State):
    """One state of one task run."""

    __tablename__ = "task_run_state"

    run_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(TaskRun.id, ondelete="CASCADE"), info=PRIVATE, doc="Id of the task run."
    )

    run: Mapped[TaskRun] = relationship(
        lazy="raise", info=reverse("states", HISTORY), doc="The task run that was in the state."
    )

    __table_args__ = (sa.UniqueConstraint("run_id", "version"), known("task_run_state", "artifact_id"))
