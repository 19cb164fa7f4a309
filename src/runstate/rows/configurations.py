"""Settings in the database."""

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from runstate.documents.access import Scope
from runstate.rows.base import JSON, READ_ONLY, Row, needs


class Configuration(Row):
    """A setting for all servers on one database. It must not be a secret."""

    __tablename__ = "configuration"

    key: Mapped[str] = mapped_column(unique=True, info=READ_ONLY, doc="Unique key.")
    value: Mapped[dict[str, Any]] = mapped_column(
        JSON, info=READ_ONLY | needs(Scope.ADMIN), doc="An object, at most 64 KiB."
    )
