"""How many runs are in which state, kept as changes that are summed when somebody asks."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from runstate.documents.states import RunKind, StateType
from runstate.rows.base import Base
from runstate.rows.runs import STATE_TYPE


class RunTally(Base):
    """A change of a number of runs. Only added to; a service replaces many changes by their sum."""

    __tablename__ = "run_tally"

    seq: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, doc="Order of writing."
    )
    run_kind: Mapped[RunKind] = mapped_column(
        sa.Enum(RunKind, native_enum=False, length=16, create_constraint=False), doc="Flow runs or task runs."
    )
    flow_id: Mapped[UUID | None] = mapped_column(doc="Id of the flow of the runs.")
    deployment_id: Mapped[UUID | None] = mapped_column(
        doc="Id of the deployment that the runs were made from; one that is gone is none."
    )
    state_type: Mapped[StateType | None] = mapped_column(STATE_TYPE, doc="Type of the state that the runs are in.")
    state_name: Mapped[str | None] = mapped_column(doc="Name of the state, or `…` for the names that are not counted.")
    number: Mapped[int] = mapped_column(sa.BigInteger(), doc="How many runs came to it, less those that left it.")

    __table_args__ = (sa.Index(None, "run_kind", "flow_id"), sa.Index(None, "deployment_id"))


class CountedName(Base):
    """A state name of a client's own that runs are counted under: the first of each type that were used."""

    __tablename__ = "counted_name"

    state_type: Mapped[StateType] = mapped_column(STATE_TYPE, primary_key=True, doc="Type of the state.")
    name: Mapped[str] = mapped_column(primary_key=True, doc="Name of the state.")
