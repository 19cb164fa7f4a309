"""Tallies: numbers of runs by state, stored as changes that queries add up."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from runstate.documents.states import RunKind, StateType
from runstate.rows.base import Base
from runstate.rows.runs import STATE_TYPE


class RunTally(Base):
    """A change of a number of runs. Rows are never updated; a service replaces many by their sum."""

    __tablename__ = "run_tally"

    # SQLite numbers rows only by an INTEGER PRIMARY KEY.
    seq: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, doc="Order of writing."
    )
    run_kind: Mapped[RunKind] = mapped_column(
        sa.Enum(RunKind, native_enum=False, length=16, create_constraint=False), doc="Flow runs or task runs."
    )
    flow_id: Mapped[UUID | None] = mapped_column(doc="Id of the flow of the runs.")
    deployment_id: Mapped[UUID | None] = mapped_column(doc="Id of the deployment of the runs; null if it was deleted.")
    state_type: Mapped[StateType | None] = mapped_column(STATE_TYPE, doc="Type of the state that the runs are in.")
    state_name: Mapped[str | None] = mapped_column(
        doc="Name of the state, or `…` for the names that are not counted separately."
    )
    number: Mapped[int] = mapped_column(
        sa.BigInteger(), doc="Number of runs that entered the group, minus those that left it."
    )

    __table_args__ = (sa.Index(None, "run_kind", "flow_id"), sa.Index(None, "deployment_id"))


class CountedName(Base):
    """A custom state name with its own tally: the first names of each type that clients used."""

    __tablename__ = "counted_name"

    state_type: Mapped[StateType] = mapped_column(STATE_TYPE, primary_key=True, doc="Type of the state.")
    name: Mapped[str] = mapped_column(primary_key=True, doc="Name of the state.")
