"""A table with sortable and filterable columns of every type, including types that no public table has yet."""

from datetime import date, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from runstate.graphql.types.derive import register_type
from runstate.graphql.types.registry import Registry
from runstate.rows import Row
from runstate.rows.base import NOT_FILTERABLE, DocumentColumn


class Colour(Enum):
    """A colour."""

    RED = "RED"
    """Red."""
    BLUE = "BLUE"
    """Blue."""


COLOUR = sa.Enum(Colour, native_enum=False, length=16, create_constraint=False)


class Sample(Row):
    """A row with a column of every type."""

    __tablename__ = "sample"
    __private__ = True
    metadata = sa.MetaData()  # of its own: the server has no such table

    rate: Mapped[float] = mapped_column(index=True, doc="A number.")
    maybe_rate: Mapped[float | None] = mapped_column(index=True, doc="A number or null.")
    active: Mapped[bool] = mapped_column(index=True, doc="A Boolean.")
    maybe_active: Mapped[bool | None] = mapped_column(index=True, doc="A Boolean or null.")
    number: Mapped[int] = mapped_column(index=True, doc="An integer.")
    maybe_number: Mapped[int | None] = mapped_column(index=True, doc="An integer or null.")
    small: Mapped[int] = mapped_column(sa.SmallInteger(), index=True, doc="A small integer.")
    large: Mapped[int] = mapped_column(sa.BigInteger(), index=True, doc="A large integer.")
    maybe_large: Mapped[int | None] = mapped_column(sa.BigInteger(), index=True, doc="A large integer or null.")
    day: Mapped[date] = mapped_column(index=True, doc="A date.")
    maybe_day: Mapped[date | None] = mapped_column(index=True, doc="A date or null.")
    length: Mapped[timedelta] = mapped_column(index=True, doc="A duration.")
    maybe_length: Mapped[timedelta | None] = mapped_column(index=True, doc="A duration or null.")
    colour: Mapped[Colour] = mapped_column(COLOUR, index=True, doc="A colour.")
    maybe_colour: Mapped[Colour | None] = mapped_column(COLOUR, index=True, doc="A colour or null.")
    text: Mapped[str] = mapped_column(index=True, doc="A text.")
    maybe_text: Mapped[str | None] = mapped_column(index=True, doc="A text or null.")
    key: Mapped[UUID] = mapped_column(index=True, doc="An id.")
    maybe_key: Mapped[UUID | None] = mapped_column(index=True, doc="An id or null.")
    instant: Mapped[datetime] = mapped_column(index=True, doc="A timestamp.")
    maybe_instant: Mapped[datetime | None] = mapped_column(index=True, doc="A timestamp or null.")
    colours: Mapped[list[Colour]] = mapped_column(DocumentColumn(list[Colour]), doc="Colours.")
    numbers: Mapped[list[int]] = mapped_column(DocumentColumn(list[int]), doc="Integers.")
    keys: Mapped[list[UUID]] = mapped_column(DocumentColumn(list[UUID]), doc="Ids.")
    tags: Mapped[list[str]] = mapped_column(doc="Texts.")
    anything: Mapped[dict[str, Any]] = mapped_column(info=NOT_FILTERABLE, doc="Any JSON value.")


register_type(Sample, registry=Registry())
