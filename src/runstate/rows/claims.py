"""Claims: the leases of workers on flow runs."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from runstate.rows.base import JSON, PRIVATE, Base, Retention, Row, reverse
from runstate.rows.pools import Worker, WorkQueue
from runstate.rows.runs import FlowRun


class RunClaim(Row):
    """A worker's lease on a flow run.

    It ends when the run leaves the worker's process, when it is released, or when it expires.
    """

    __tablename__ = "run_claim"
    __node__ = False  # `flowRun` of other nodes is nullable
    __indexed__ = ("expires", "created")

    flow_run_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(FlowRun.id, ondelete="CASCADE"), unique=True, doc="Id of the run."
    )
    # Without CASCADE: a run must not lose its claim unless it is handed to another worker.
    worker_id: Mapped[UUID] = mapped_column(sa.ForeignKey(Worker.id), index=True, doc="Id of the worker.")
    work_queue_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey(WorkQueue.id, ondelete="SET NULL"),
        index=True,
        info=PRIVATE,
        doc="Id of the queue from which it was claimed.",
    )
    expires: Mapped[datetime] = mapped_column(
        doc="Time at which it expires unless it is renewed. Then a PENDING run becomes SCHEDULED again at its original "
        "time, for another worker, and a RUNNING run becomes CRASHED."
    )
    lease_seconds: Mapped[float] = mapped_column(info=PRIVATE, doc="Length of the lease in seconds.")

    flow_run: Mapped[FlowRun] = relationship(lazy="raise", doc="The run.")
    worker: Mapped[Worker] = relationship(
        lazy="raise", info=reverse("claims", "Claims on the runs that it holds."), doc="The worker."
    )
    work_queue: Mapped[WorkQueue | None] = relationship(lazy="raise", doc="The queue from which it was claimed.")


class ClaimAnswer(Base):
    """The ids of the claims that a worker made with an idempotency key."""

    __tablename__ = "claim_answer"
    __retention__ = Retention("created", setting="idempotency_retention_hours")

    worker_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(Worker.id, ondelete="CASCADE"), primary_key=True, doc="Id of the worker."
    )
    key: Mapped[str] = mapped_column(primary_key=True, doc="The worker's key.")
    created: Mapped[datetime] = mapped_column(index=True, doc="Time of the claims.")
    claim_ids: Mapped[list[Any]] = mapped_column(JSON, doc="Ids of the claims, in order.")
