"""Log tables, their checkpoints, and the identity of the database."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.compiler import DDLCompiler, SQLCompiler

from runstate.documents.states import RunKind, StateType
from runstate.rows.base import JSON, PRIVATE, Base, Retention, Timestamp
from runstate.rows.runs import STATE_TYPE


class Xid8(sa.types.UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


class ServerSays(sa.sql.expression.ColumnElement[Any]):
    """A column default that PostgreSQL computes with a function; NULL on SQLite, which does not need it."""

    inherit_cache = True

    def __init__(self, function: str) -> None:
        self.function = function


@compiles(ServerSays, "postgresql")
def _on_postgresql(element: ServerSays, compiler: SQLCompiler | DDLCompiler, **_: Any) -> str:
    return element.function


@compiles(ServerSays)
def _elsewhere(element: ServerSays, compiler: SQLCompiler | DDLCompiler, **_: Any) -> str:
    return "NULL"


class LogEntry(Base):
    """A table that subscribers read in order and without gaps. Rows are inserted and pruned, but never updated.

    A subclass passes its constraints through `log_table`. The feed reads it as `runstate.feed.log.Log(SubClass)`.
    """

    __abstract__ = True

    __keys__: ClassVar[tuple[str, ...]] = ()
    """Columns with ids. Subscribers that filter by such ids are found by them."""
    __text__: ClassVar[str | None] = None
    """Column with long text, whose length limits the entries of a page; None without such a column."""

    seq: Mapped[int] = mapped_column(
        # SQLite numbers rows only by an INTEGER PRIMARY KEY.
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
        primary_key=True,
        autoincrement=True,
        info=PRIVATE,
        sort_order=-3,
        doc="Order of insertion. Entries of transactions that wait for each other's locks are in commit order.",
    )
    xid: Mapped[str | None] = mapped_column(
        Xid8().with_variant(sa.Text(), "sqlite"),
        # `seq` is drawn before the commit, so its order is not that of commits; snapshots tell what is visible.
        server_default=ServerSays("pg_current_xact_id()"),
        index=True,
        info=PRIVATE,
        sort_order=-2,
        doc="PostgreSQL: id of the inserting transaction; decides whether a snapshot sees the entry.",
    )
    boot: Mapped[datetime | None] = mapped_column(
        Timestamp(),
        server_default=ServerSays("pg_postmaster_start_time()"),
        info=PRIVATE,
        sort_order=-1,
        doc="PostgreSQL: start of the server that inserted it. Transaction ids are assigned again after a crash.",
    )


def log_table(*constraints: sa.schema.SchemaItem) -> tuple[Any, ...]:
    """Return the `__table_args__` of a log table with these constraints and indexes of its own."""
    # Without AUTOINCREMENT, SQLite would assign numbers of pruned entries again, and cursors would skip new entries.
    return *constraints, sa.Index(None, "boot", "xid"), {"sqlite_autoincrement": True}


class Transition(LogEntry):
    """An entry of the log: a run entered a state. It is written in the same transaction as the state."""

    __tablename__ = "transition"
    __keys__ = ("run_id", "flow_run_id")
    __text__ = "message"
    __retention__ = Retention("occurred", setting="transition_log_retention_days")

    run_kind: Mapped[RunKind] = mapped_column(
        sa.Enum(RunKind, native_enum=False, length=16, create_constraint=False), doc="Whether a flow run or a task run."
    )
    run_id: Mapped[UUID] = mapped_column(doc="Id of the run.")
    state_id: Mapped[UUID] = mapped_column(doc="Id of the state entered.")
    flow_run_id: Mapped[UUID | None] = mapped_column(doc="Id of the flow run: itself, or that of the task run.")
    flow_id: Mapped[UUID | None] = mapped_column(doc="Id of the flow.")
    deployment_id: Mapped[UUID | None] = mapped_column(doc="Id of the deployment.")
    version: Mapped[int] = mapped_column(doc="Version of the state entered: 1, 2, 3 … in the run.")
    occurred: Mapped[datetime] = mapped_column(doc="Time at which the state was entered, by the server's clock.")
    previous_state_type: Mapped[StateType | None] = mapped_column(STATE_TYPE, doc="Type of the state that was left.")
    previous_state_name: Mapped[str | None] = mapped_column(doc="Name of the state that was left.")
    state_type: Mapped[StateType] = mapped_column(STATE_TYPE, doc="Type of the state entered.")
    state_name: Mapped[str] = mapped_column(doc="Name of the state entered.")
    message: Mapped[str | None] = mapped_column(doc="Message of the state entered.")
    tags: Mapped[list[str]] = mapped_column(JSON, doc="Tags of the run when it entered the state.")
    run_name: Mapped[str | None] = mapped_column(info=PRIVATE, doc="Name of the run, which its event tells.")
    run_count: Mapped[int | None] = mapped_column(
        info=PRIVATE, doc="Number of times that the run had entered RUNNING, which its event tells."
    )
    cause: Mapped[UUID | None] = mapped_column(
        info=PRIVATE, doc="Id of the firing of an automation that led to it; null for none."
    )

    __table_args__ = log_table(
        sa.UniqueConstraint("run_id", "version"), sa.Index(None, "occurred"), sa.Index(None, "state_id")
    )


class LogCheckpoint(Base):
    """The end of a log at a time. Retention deletes up to a checkpoint; long reads go from checkpoint to checkpoint."""

    __tablename__ = "log_checkpoint"

    log: Mapped[str] = mapped_column(primary_key=True, doc="Table of the log.")
    at: Mapped[datetime] = mapped_column(primary_key=True, doc="Time at which the position was the end of the log.")
    upper_bound: Mapped[int] = mapped_column(sa.BigInteger(), doc="`xmax` of the position; never decreases with time.")
    position: Mapped[str] = mapped_column(doc="The position, as cursors hold it.")

    __table_args__ = (sa.Index(None, "log", "upper_bound"),)


class LogFloor(Base):
    """The position up to which retention has deleted a log. A log without a row is complete."""

    __tablename__ = "log_floor"

    log: Mapped[str] = mapped_column(primary_key=True, doc="Table of the log.")
    position: Mapped[str] = mapped_column(doc="The position, as cursors hold it.")


class Installation(Base):
    """The identity of the database, in exactly one row. Cursors of another database are rejected."""

    __tablename__ = "installation"

    id: Mapped[UUID] = mapped_column(primary_key=True, doc="Generated by the first migration.")
    cluster: Mapped[str | None] = mapped_column(
        doc="PostgreSQL: identity of the cluster. The transaction ids in a log are meaningless in another cluster."
    )
