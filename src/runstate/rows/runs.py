"""Flow runs, task runs and the states they have been in."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import FINAL_TYPES, StateDetails, StateType
from runstate.rows.base import PRIVATE, DocumentColumn, Row
from runstate.rows.flows import Deployment, Flow

STATE_TYPE = sa.Enum(StateType, native_enum=False, length=16, name="state_type", create_constraint=False)
"""Kept as text: adding a type is no migration of the table."""


class State(Row):
    """One state of one run. Versions count a run's states 1, 2, 3 … in the order in which they were committed."""

    __abstract__ = True

    type: Mapped[StateType] = mapped_column(STATE_TYPE, doc="What the run is doing; rules look at it.")
    name: Mapped[str] = mapped_column(doc="The type in words, or a more telling name.")
    message: Mapped[str | None] = mapped_column(doc="Free text for people.")
    timestamp: Mapped[datetime] = mapped_column(doc="The server's clock when it was entered; never goes back in a run.")
    version: Mapped[int] = mapped_column(doc="Number of the state in the run's history, from 1, without gaps.")
    data: Mapped[Any | None] = mapped_column(doc="Where the result is, or the result itself.")
    details: Mapped[StateDetails] = mapped_column(
        DocumentColumn(StateDetails), doc="What rules and clients know about the state besides."
    )
    persisted: Mapped[bool] = mapped_column(
        default=False, info=PRIVATE, doc="Whether data refers to a result that is kept, so that deciding needs no data."
    )
    actor: Mapped[str] = mapped_column(default="anonymous", doc="Who proposed it; `anonymous` without authentication.")
    request_id: Mapped[str | None] = mapped_column(doc="Id of the request that proposed it, as in the server's log.")

    @property
    def is_final(self) -> bool:
        """Whether the type ends a run: COMPLETED, FAILED, CANCELLED or CRASHED."""
        return self.type in FINAL_TYPES


class Run(Row):
    """A flow run or a task run."""

    __abstract__ = True

    name: Mapped[str] = mapped_column(doc="Name for people; not unique.")
    tags: Mapped[list[str]] = mapped_column(default=list, doc="Labels to find the run by; limits go by tags too.")
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict, doc="Keys and values to find the run by.")
    state_id: Mapped[UUID | None] = mapped_column(doc="Id of the current state.")
    state_type: Mapped[StateType | None] = mapped_column(STATE_TYPE, doc="Type of the current state.")
    state_name: Mapped[str | None] = mapped_column(doc="Name of the current state.")
    state_timestamp: Mapped[datetime | None] = mapped_column(doc="When the current state was entered.")
    version: Mapped[int] = mapped_column(default=0, doc="Version of the current state; 0: none yet.")
    run_count: Mapped[int] = mapped_column(default=0, doc="How often the run entered RUNNING.")
    expected_start_time: Mapped[datetime | None] = mapped_column(doc="When it was first expected to start.")
    next_scheduled_start_time: Mapped[datetime | None] = mapped_column(doc="When a SCHEDULED run is due.")
    start_time: Mapped[datetime | None] = mapped_column(doc="When it first entered RUNNING.")
    end_time: Mapped[datetime | None] = mapped_column(doc="When it entered a final state.")
    total_run_time_seconds: Mapped[float] = mapped_column(
        default=0.0, doc="Seconds spent in RUNNING, up to the last change of state."
    )


def known(table: str, column: str) -> sa.Index:
    """An index of the rows that have a value in a column: nulls come last both ways, and are read apart."""
    there = sa.text(f"{column} IS NOT NULL")
    return sa.Index(f"ix_{table}_{column}", column, postgresql_where=there, sqlite_where=there)


def run_rules(table: str) -> tuple[sa.schema.SchemaItem, ...]:
    """What holds for every run, and indexes for the columns that runs are sorted and looked up by.

    A change of state is a new entry in each of them, but not in those that leave out nulls while the value is null.
    """
    return (
        sa.CheckConstraint("version >= 0", name="version_not_negative"),
        sa.CheckConstraint("run_count >= 0", name="run_count_not_negative"),
        sa.CheckConstraint("total_run_time_seconds >= 0", name="run_time_not_negative"),
        sa.Index(f"ix_{table}_name", "name"),
        sa.Index(f"ix_{table}_created", "created"),
        known(table, "expected_start_time"),
        known(table, "start_time"),
        known(table, "end_time"),
        known(table, "next_scheduled_start_time"),
        sa.Index(f"ix_{table}_state_type_start_time", "state_type", "start_time"),
        sa.Index(f"ix_{table}_tags", "tags", postgresql_using="gin", info={"only": "postgresql"}).ddl_if("postgresql"),
        sa.Index(f"ix_{table}_tags_list", "tags", sqlite_where=sa.text("tags <> '[]'"), info={"only": "sqlite"}).ddl_if(
            "sqlite"
        ),
    )


class FlowRun(Run):
    """One execution of a flow."""

    __tablename__ = "flow_run"

    flow_id: Mapped[UUID] = mapped_column(sa.ForeignKey(Flow.id, ondelete="CASCADE"), doc="Id of the flow.")
    deployment_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey(Deployment.id, ondelete="SET NULL"), index=True, doc="Id of the deployment that it was made from."
    )
    parent_task_run_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey("task_run.id", ondelete="SET NULL", use_alter=True),
        index=True,
        doc="Of a subflow run: id of the task run that stands for it in the parent flow run.",
    )
    parameters: Mapped[dict[str, Any]] = mapped_column(default=dict, doc="Arguments of the flow.")
    context: Mapped[dict[str, Any]] = mapped_column(default=dict, doc="Further values that the client keeps here.")
    policy: Mapped[FlowRunPolicy] = mapped_column(
        DocumentColumn(FlowRunPolicy), doc="How it is retried, and what pausing and retrying noted."
    )
    idempotency_key: Mapped[str | None] = mapped_column(doc="A second run of the flow with this key is not created.")
    infrastructure_pid: Mapped[str | None] = mapped_column(doc="Where it runs: a process, a container, a job.")
    flow_version: Mapped[str | None] = mapped_column(doc="Version of the flow's code.")
    work_queue_name: Mapped[str | None] = mapped_column(doc="The work queue that it goes to.")

    flow: Mapped[Flow] = relationship(lazy="raise", doc="The flow that is run.")
    deployment: Mapped[Deployment | None] = relationship(lazy="raise", doc="The deployment that it was made from.")

    parent_task_run: Mapped["TaskRun | None"] = relationship(
        lazy="raise",
        foreign_keys=[parent_task_run_id],
        doc="Of a subflow run: the task run that stands for it in the parent flow run.",
    )

    __table_args__ = (sa.UniqueConstraint("flow_id", "idempotency_key"), *run_rules("flow_run"))


class TaskRun(Run):
    """One execution of a task."""

    __tablename__ = "task_run"

    flow_run_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey(FlowRun.id, ondelete="CASCADE"), doc="Id of the flow run that it belongs to."
    )
    task_key: Mapped[str] = mapped_column(doc="Names the task.")
    dynamic_key: Mapped[str] = mapped_column(doc="Tells runs of one task in one flow run apart.")
    cache_key: Mapped[str | None] = mapped_column(doc="Under which key its result is cached.")
    task_version: Mapped[str | None] = mapped_column(doc="Version of the task's code.")
    policy: Mapped[TaskRunPolicy] = mapped_column(DocumentColumn(TaskRunPolicy), doc="How it is retried.")
    task_inputs: Mapped[dict[str, Any]] = mapped_column(
        default=dict, doc="Of each argument, what it came from: task runs, parameters, constants."
    )
    flow_run_run_count: Mapped[int] = mapped_column(
        default=0, doc="Run count of the flow run when the task run last entered RUNNING."
    )

    flow_run: Mapped[FlowRun | None] = relationship(
        lazy="raise", foreign_keys=[flow_run_id], doc="The flow run that it belongs to."
    )

    __table_args__ = (
        sa.UniqueConstraint("flow_run_id", "task_key", "dynamic_key"),
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

    run: Mapped[FlowRun] = relationship(lazy="raise", doc="The flow run that was in the state.")

    __table_args__ = (sa.UniqueConstraint("run_id", "version"),)


class TaskRunState(State):
    """One state of one task run."""

    __tablename__ = "task_run_state"

    run_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(TaskRun.id, ondelete="CASCADE"), info=PRIVATE, doc="Id of the task run."
    )

    run: Mapped[TaskRun] = relationship(lazy="raise", doc="The task run that was in the state.")

    __table_args__ = (sa.UniqueConstraint("run_id", "version"),)
