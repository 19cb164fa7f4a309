"""Logs of runs, and the log of their writes that subscribers follow."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, foreign, mapped_column

from runstate.rows.base import READ_ONLY, Retention, Row, reverse, unconstrained
from runstate.rows.log import LogEntry, log_table
from runstate.rows.runs import FlowRun, TaskRun

KNOWN_TASK_RUN = sa.text("task_run_id IS NOT NULL")


class Log(Row):
    """A line that a program logged. Lines never change. `LogWhere` has a full-text search: see its member `search`."""

    __tablename__ = "log"
    __order__ = ("timestamp", "id")
    __searched__ = ("message", "logger")
    __numerous__ = True
    __retention__ = Retention("id", setting="run_log_retention_days")

    updated = None  # type: ignore[assignment]  # A line is never updated, so the column would only make the largest table larger.

    logger: Mapped[str] = mapped_column(info=READ_ONLY, doc="Name of the logger.")
    level: Mapped[int] = mapped_column(
        sa.SmallInteger(), info=READ_ONLY, doc="Severity: 10 debug, 20 info, 30 warning, 40 error, 50 critical."
    )
    message: Mapped[str] = mapped_column(info=READ_ONLY, doc="Text of the line, at most 100,000 characters.")
    timestamp: Mapped[datetime] = mapped_column(info=READ_ONLY, doc="Time of the line, by the clock of the program.")
    flow_run_id: Mapped[UUID | None] = mapped_column(
        info=READ_ONLY, doc="Id of the flow run; a line of a task run in a flow run has both ids."
    )
    task_run_id: Mapped[UUID | None] = mapped_column(info=READ_ONLY, doc="Id of the task run.")
    worker_id: Mapped[UUID | None] = mapped_column(info=READ_ONLY, doc="Id of the worker that wrote the line.")
    truncated: Mapped[bool] = mapped_column(info=READ_ONLY, doc="True if the end of the message was cut off.")

    flow_run: Mapped[FlowRun | None] = unconstrained(
        lambda: FlowRun.id == foreign(Log.flow_run_id),
        info=reverse("logs", "Logs of the run and of its task runs; oldest first by default."),
        doc="The flow run; null if it is unknown.",
    )
    task_run: Mapped[TaskRun | None] = unconstrained(
        lambda: TaskRun.id == foreign(Log.task_run_id),
        info=reverse("logs", "Logs of the run; oldest first by default."),
        doc="The task run; null if it is unknown.",
    )

    # No foreign keys: a line can arrive before its run, and checking each line would cost more than writing it.
    __table_args__ = (
        sa.Index(None, "flow_run_id", "timestamp", "id"),
        sa.Index(None, "task_run_id", "timestamp", "id", postgresql_where=KNOWN_TASK_RUN, sqlite_where=KNOWN_TASK_RUN),
        sa.Index(None, "timestamp", "id"),
    )


class LogWrite(LogEntry):
    """Lines of one flow run that were written together; their ids are consecutive numbers from `first_id` on."""

    __tablename__ = "log_write"
    __keys__ = ("flow_run_id",)
    __retention__ = Retention("written", setting="transition_log_retention_days")

    written: Mapped[datetime] = mapped_column(doc="Time at which the lines were written.")
    first_id: Mapped[UUID] = mapped_column(doc="Id of the first line.")
    lines: Mapped[int] = mapped_column(doc="Number of lines.")
    size: Mapped[int] = mapped_column(doc="Approximate number of characters that the lines have as JSON.")
    flow_run_id: Mapped[UUID | None] = mapped_column(doc="Id of the flow run of all lines.")

    __table_args__ = log_table(sa.Index(None, "flow_run_id", "seq"))
