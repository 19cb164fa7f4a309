"""Cached results, stored answers and run inputs."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.orm import Mapped, mapped_column, relationship

from runstate.documents.base import JsonValue, Name
from runstate.documents.states import RunKind
from runstate.rows.base import JSON, PRIVATE, READ_ONLY, REQUIRED, Base, Retention, Row, reverse
from runstate.rows.limits import ConcurrencyLimit
from runstate.rows.runs import FlowRun, TaskRunState

InputKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]+$", max_length=255)]


class CacheEntry(Row):
    """A completed state with its cache key. A task run that proposes RUNNING with the key gets a copy of the state."""

    __tablename__ = "task_run_state_cache"
    __private__ = True
    # Expired results are deleted, so that the table stays small.
    __retention__ = Retention("expires", replaces="digest")

    cache_key: Mapped[str] = mapped_column(doc="Key of the result, at most 2,000 characters.")
    digest: Mapped[str] = mapped_column(info=PRIVATE, doc="SHA-256 of the key: keys may be too long for an index.")
    expires: Mapped[datetime | None] = mapped_column(doc="Time of expiry; null for never.")
    state_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(TaskRunState.id, ondelete="CASCADE"), index=True, doc="Id of the state that holds the result."
    )

    __table_args__ = (sa.Index(None, "digest", "created"), sa.Index(None, "expires"))


class ProposalAnswer(Base):
    """The stored answer to a proposal with an idempotency key, returned again for the same proposal."""

    __tablename__ = "proposal_answer"
    __retention__ = Retention("created", setting="idempotency_retention_hours")

    run_id: Mapped[UUID] = mapped_column(primary_key=True, doc="Id of the flow run or task run.")
    key: Mapped[str] = mapped_column(primary_key=True, doc="The client's key, unique for the run.")
    fingerprint: Mapped[str] = mapped_column(doc="Digest of the proposal, to detect a different one with the same key.")
    created: Mapped[datetime] = mapped_column(index=True, doc="Time of the answer.")
    answer: Mapped[dict[str, Any]] = mapped_column(JSON, doc="Status, reason, rule and the verdict of each rule.")
    state_id: Mapped[UUID] = mapped_column(doc="Id of the state that was written.")


class BulkOperation(Base):
    """The progress of a command for many runs with an idempotency key."""

    __tablename__ = "bulk_operation"
    __retention__ = Retention("updated", setting="idempotency_retention_hours")

    key: Mapped[str] = mapped_column(primary_key=True, doc="The client's key.")
    fingerprint: Mapped[str] = mapped_column(doc="Digest of the command, to detect a different one with the same key.")
    created: Mapped[datetime] = mapped_column(doc="Time of the first request.")
    updated: Mapped[datetime] = mapped_column(index=True, doc="Time of the last change.")
    mutation: Mapped[str] = mapped_column(doc="Name of the mutation.")
    total: Mapped[int] = mapped_column(doc="Number of runs that met the condition at the start.")
    done: Mapped[int] = mapped_column(doc="Number of runs that were handled.")
    cursor: Mapped[UUID | None] = mapped_column(doc="Id of the last run that was handled.")
    has_more: Mapped[bool] = mapped_column(doc="True if further runs met the condition.")
    finished: Mapped[bool] = mapped_column(doc="True if the limit or the last run was reached.")
    outcomes: Mapped[list[Any]] = mapped_column(JSON, doc="Each outcome, its number of runs and some of their ids.")


class Heartbeat(Base):
    """The last sign of life of the client of a run with `heartbeat_seconds`. Times are those of the database."""

    __tablename__ = "heartbeat"

    run_id: Mapped[UUID] = mapped_column(primary_key=True, doc="Id of the flow run or task run.")
    version: Mapped[int] = mapped_column(doc="Version that the run had. It says nothing about later states.")
    heard: Mapped[datetime] = mapped_column(doc="Time of the last heartbeat or proposal, by the database's clock.")


class ConcurrencyWaiter(Row):
    """A run that waits for a slot: its last proposal was delayed or rescheduled because the limit is full."""

    __tablename__ = "concurrency_waiter"
    __node__ = False  # its `limit` and `run` have other types than these fields of other nodes
    __order__ = ("created", "id")

    created: Mapped[datetime] = mapped_column(sort_order=-2, info=READ_ONLY, doc="Time since when the run waits.")
    updated: Mapped[datetime] = mapped_column(
        sort_order=-1, info=READ_ONLY, doc="Time of its last proposal, recorded at most once a second."
    )
    limit_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(ConcurrencyLimit.id, ondelete="CASCADE"), doc="Id of the limit."
    )
    run_id: Mapped[UUID] = mapped_column(doc="Id of the flow run or task run.")
    run_kind: Mapped[RunKind] = mapped_column(
        sa.Enum(RunKind, native_enum=False, length=16, create_constraint=False), doc="Kind of the run."
    )

    flow_run_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey(FlowRun.id, ondelete="CASCADE"),
        index=True,
        doc="Id of the flow run that waits, or of the flow run of the task run that waits.",
    )

    flow_run: Mapped[FlowRun | None] = relationship(
        lazy="raise", doc="The flow run that waits, or the flow run of the task run that waits."
    )
    limit: Mapped[ConcurrencyLimit] = relationship(
        lazy="raise",
        info=reverse("waiting", "The runs that wait for a slot of the limit; by default the longest waiting first."),
        doc="The limit that is full.",
    )

    __table_args__ = (sa.UniqueConstraint("run_id", "limit_id"), sa.Index(None, "limit_id", "created"))


class FlowRunInput(Row):
    """A keyed value for a flow run: the input that a paused run waits for, or a message of another program."""

    __tablename__ = "flow_run_input"
    __node__ = False  # `flowRun` of nodes is nullable

    flow_run_id: Mapped[UUID] = mapped_column(sa.ForeignKey(FlowRun.id, ondelete="CASCADE"), doc="Id of the flow run.")
    key: Mapped[InputKey] = mapped_column(doc="Name, unique for the flow run: letters, digits, `-`, `_`, `.`, `:`.")
    value: Mapped[JsonValue | None] = mapped_column(JSON, info=REQUIRED, doc="Any JSON value, at most 512 KiB.")
    sender: Mapped[Name | None] = mapped_column(doc="Name of the sender, for people.")

    flow_run: Mapped[FlowRun] = relationship(
        lazy="raise", info=reverse("inputs", "Values that the run reads, by key."), doc="The flow run that reads it."
    )

    __table_args__ = (sa.UniqueConstraint("flow_run_id", "key"), sa.Index(None, "created"))
