"""Concurrency limits and the leases on their slots."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from runstate.documents.base import Name, NonNegativeInt, PerSecond
from runstate.rows.base import CREATE_ONLY, PRIVATE, READ_ONLY, Row, reverse


class ConcurrencyLimit(Row):
    """A named number of slots. `tag:<tag>` limits the RUNNING task runs that carry the tag."""

    __tablename__ = "concurrency_limit"
    __announced__ = True

    name: Mapped[Name] = mapped_column(
        info=CREATE_ONLY, doc="Unique name. `tag:<tag>` limits the RUNNING task runs that carry the tag."
    )
    deployment_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey("deployment.id", ondelete="CASCADE", use_alter=True),  # deployments refer to limits, too
        info=READ_ONLY,
        doc="Id of the deployment that owns the limit; null for the limits of clients.",
    )
    limit: Mapped[NonNegativeInt] = mapped_column(doc="Number of slots. A lower number frees no slot that is held.")
    active: Mapped[bool] = mapped_column(default=True, doc="True if the limit is enforced.")
    occupied: Mapped[int] = mapped_column(
        default=0, info=PRIVATE, doc="Occupied slots of a limit without decay: the sum over its leases."
    )
    slot_decay_per_second: Mapped[PerSecond] = mapped_column(
        default=0.0,
        doc="Slots that are freed each second (a rate limit); 0 if slots are held until released. "
        "It can only be changed while no slot is held.",
    )
    drained: Mapped[datetime | None] = mapped_column(
        info=PRIVATE, doc="For a rate limit: time at which the last slot becomes free, the latest expiry of its leases."
    )
    average_slot_occupancy_seconds: Mapped[float] = mapped_column(
        default=2.0,
        info=READ_ONLY,
        doc="Moving average of the seconds that a slot is held; waiting times are drawn around it.",
    )

    __table_args__ = (
        # Limits of deployments do not share names with the limits of clients.
        sa.Index(
            "uq_concurrency_limit_name",
            "name",
            unique=True,
            postgresql_where=sa.text("deployment_id IS NULL"),
            sqlite_where=sa.text("deployment_id IS NULL"),
        ),
        sa.Index(None, "deployment_id", unique=True),
        sa.CheckConstraint('"limit" >= 0', name="limit_not_negative"),
        sa.CheckConstraint("occupied >= 0", name="occupied_not_negative"),
        sa.CheckConstraint("slot_decay_per_second >= 0", name="decay_not_negative"),
        sa.Index(None, "created"),
    )


class ConcurrencyLease(Row):
    """Slots of one limit, held until they are released or the lease expires."""

    __tablename__ = "concurrency_lease"
    __node__ = False  # its `limit` and `run` have other types than these fields of other nodes

    limit_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey(ConcurrencyLimit.id, ondelete="CASCADE"), index=True, doc="Id of the limit."
    )
    slots: Mapped[int] = mapped_column(doc="Number of held slots.")
    holder: Mapped[str | None] = mapped_column(doc="Name of the holder, for people; null if a run holds them.")
    run_id: Mapped[UUID | None] = mapped_column(doc="Id of the flow run or task run that holds them.")
    automatic: Mapped[bool] = mapped_column(
        default=False, doc="True if a state of the run acquired the slots; then leaving it releases them."
    )
    expires: Mapped[datetime | None] = mapped_column(
        doc="Time at which the slots are released unless the lease is renewed; null if only the holder releases them."
    )

    limit: Mapped[ConcurrencyLimit] = relationship(
        lazy="raise", info=reverse("leases", "The leases on slots of the limit."), doc="The limit whose slots are held."
    )

    __table_args__ = (
        sa.CheckConstraint("slots > 0", name="slots_positive"),
        sa.Index(None, "run_id"),
        sa.Index(None, "expires"),
        sa.Index(None, "created"),
    )
