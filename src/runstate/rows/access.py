"""API keys and CSRF tokens. Keys are private: GraphQL does not show them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from runstate.rows.base import PRIVATE, Row


class ApiKey(Row):
    """An API key. The key itself is shown once and not stored."""

    __tablename__ = "api_key"
    __private__ = True

    name: Mapped[str] = mapped_column(unique=True, doc="Name of the owner: the actor of the states that it proposes.")
    prefix: Mapped[str] = mapped_column(unique=True, info=PRIVATE, doc="First characters of the key, for lookups.")
    digest: Mapped[str] = mapped_column(
        info=PRIVATE, doc="SHA-256 of the whole key. The key is random, so a slow hash is not needed."
    )
    scopes: Mapped[list[str]] = mapped_column(doc="Scopes: `read`, `propose`, `admin`.")
    expires: Mapped[datetime | None] = mapped_column(doc="Time of expiry; null for never.")
    revoked: Mapped[datetime | None] = mapped_column(doc="Time of revocation; null if it is valid.")
    used: Mapped[datetime | None] = mapped_column(doc="Time of the last use, to the minute; null for never.")


class CsrfToken(Row):
    """A token that proves that a request comes from a trusted page: pages of other sites cannot read it."""

    __tablename__ = "csrf_token"
    __node__ = False  # a token is returned only to the client that created it

    id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-3, info=PRIVATE, doc="Unique over all types.")
    client: Mapped[str] = mapped_column(unique=True, doc="Name of the client, as it calls itself.")
    token: Mapped[str] = mapped_column(doc="The token.")
    expiration: Mapped[datetime] = mapped_column(doc="Time of expiry.")
