"""The log of transitions, which subscriptions read, and the identity of the database."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.compiler import DDLCompiler, SQLCompiler

from runstate.documents.states import RunKind, StateType
from runstate.rows.base import JSON, PRIVATE, Base, Timestamp
from runstate.rows.runs import STATE_TYPE


class Xid8(sa.types.UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


class ServerSays(sa.sql.expression.ColumnElement[Any]):
    """A default that PostgreSQL computes. SQLite has one writer and needs none."""

    inherit_cache = True

    def __init__(self, function: str) -> None:
        self.function = function


@compiles(ServerSays, "postgresql")
def _on_postgresql(element: ServerSays, compiler: SQLCompiler | DDLCompiler, **_: Any) -> str:
    return element.function


@compiles(ServerSays)
def _elsewhere(element: ServerSays, compiler: SQLCompiler | DDLCompiler, **_: Any) -> str:
    return "NULL"


class Transition(Base):
    """One entry of the log: a run entered a state. Written in the transaction that wrote the state."""

    __tablename__ = "transition"

    seq: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
        primary_key=True,
        autoincrement=True,
        info=PRIVATE,
        doc="Order of writing; within a snapshot it agrees with versions.",
    )
    xid: Mapped[str | None] = mapped_column(
        Xid8().with_variant(sa.Text(), "sqlite"),
        server_default=ServerSays("pg_current_xact_id()"),
        index=True,
        info=PRIVATE,
        doc="PostgreSQL: id of the writing transaction, to compare with snapshots.",
    )
    boot: Mapped[datetime | None] = mapped_column(
        Timestamp(),
        server_default=ServerSays("pg_postmaster_start_time()"),
        info=PRIVATE,
        doc="PostgreSQL: start of the writing server. Transaction ids are reused after a crash.",
    )
    run_kind: Mapped[RunKind] = mapped_column(
        sa.Enum(RunKind, native_enum=False, length=16, create_constraint=False), doc="Kind of the run."
    )
    run_id: Mapped[UUID] = mapped_column(doc="Id of the run.")
    state_id: Mapped[UUID] = mapped_column(doc="Id of the state entered.")
    flow_run_id: Mapped[UUID | None] = mapped_column(
        doc="Id of the flow run: the run itself, or the task run's flow run."
    )
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

    __table_args__ = (
        sa.UniqueConstraint("run_id", "version"),
        sa.Index(None, "boot", "xid"),
        {"sqlite_autoincrement": True},
    )


class LogCheckpoint(Base):
    """A position of the log, noted on the way: retention deletes up to one, long readings go from one to the next."""

    __tablename__ = "transition_mark"

    at: Mapped[datetime] = mapped_column(primary_key=True, doc="When it was the end of the log.")
    reaches: Mapped[int] = mapped_column(sa.BigInteger(), index=True, doc="End of the position; never decreases.")
    position: Mapped[str] = mapped_column(doc="The position, as cursors hold it.")


class Installation(Base):
    """Exactly one row: which database this is, so that a cursor of another one is refused."""

    __tablename__ = "installation"

    id: Mapped[UUID] = mapped_column(primary_key=True, doc="Made once by the first migration.")
    cluster: Mapped[str | None] = mapped_column(
        doc="PostgreSQL: identity of the cluster; the log's transaction ids mean nothing in another (a restored dump)."
    )
    floor: Mapped[str | None] = mapped_column(
        doc="Position up to which retention has deleted the log; null: nothing was deleted."
    )
