"""Variables."""

from sqlalchemy.orm import Mapped, mapped_column

from runstate.documents.base import Slug, SmallJsonValue
from runstate.rows.base import JSON, REQUIRED, Row, Tagged


class Variable(Tagged, Row):
    """A named value that programs read. Secrets belong into block documents."""

    __tablename__ = "variable"
    __announced__ = True
    __order__, __indexed__ = ("name",), ("created", "updated")

    name: Mapped[Slug] = mapped_column(unique=True, doc="Unique name: a-z, 0-9, `-`, `_`; 1 to 255 characters.")
    value: Mapped[SmallJsonValue | None] = mapped_column(JSON, info=REQUIRED, doc="Any JSON value, up to 5,000 bytes.")
