"""The evaluator of triggers: how far it has read the log, and the automations at that place."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from runstate.rows.base import JSON, Base, Retention


class LogReader(Base):
    """A reader of the log that writes what it derives, with its position, in one transaction."""

    __tablename__ = "log_reader"

    name: Mapped[str] = mapped_column(primary_key=True, doc="Name of the reader.")
    cursor: Mapped[str] = mapped_column(doc="Cursor up to which the log was evaluated.")
    clock: Mapped[datetime] = mapped_column(doc="Latest arrival or deadline that was evaluated.")
    rounds: Mapped[int] = mapped_column(
        sa.BigInteger(), doc="Number of rounds; a round is written only if no other one was written before it."
    )
    leader: Mapped[UUID | None] = mapped_column(doc="Process that reads.")
    leased_until: Mapped[datetime] = mapped_column(doc="Time from which another process may take over.")


class EvaluatedRound(Base):
    """A round of the evaluator that changed something. With its place in the log it can be repeated and compared."""

    __tablename__ = "evaluated_round"
    __retention__ = Retention("created", setting="automation_firing_retention_days")

    number: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
        primary_key=True,
        autoincrement=False,
        doc="Number of rounds up to it.",
    )
    created: Mapped[datetime] = mapped_column(index=True, doc="Time at which it was written, as that of its firings.")
    cursor: Mapped[str] = mapped_column(doc="Cursor after it.")
    clock: Mapped[datetime] = mapped_column(doc="Latest arrival or deadline that was evaluated.")
    is_complete: Mapped[bool] = mapped_column(doc="Whether it reached the end of the log, so that deadlines were due.")


class EvaluatedAutomation(Base):
    """An automation as it was at the place of the reader in the log; changes take effect at their place."""

    __tablename__ = "evaluated_automation"

    id: Mapped[UUID] = mapped_column(primary_key=True, doc="Id of the automation.")
    definition: Mapped[dict[str, Any]] = mapped_column(JSON, doc="Name, enabled, trigger and actions.")
