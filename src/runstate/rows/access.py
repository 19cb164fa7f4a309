"""Who is let in. Keys are private."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from runstate.rows.base import PRIVATE, Row


class ApiKey(Row):
    """Lets a client in. The key itself is shown once and kept nowhere."""

    __tablename__ = "api_key"
    __private__ = True

    name: Mapped[str] = mapped_column(unique=True, doc="Whose it is: the actor on the states that it proposes.")
    prefix: Mapped[str] = mapped_column(unique=True, info=PRIVATE, doc="How the key begins, to find it by.")
    digest: Mapped[str] = mapped_column(info=PRIVATE, doc="SHA-256 of the whole key, which is too long to be guessed.")
    scopes: Mapped[list[str]] = mapped_column(doc="What it allows: `read`, `propose`, `admin`.")
    expires: Mapped[datetime | None] = mapped_column(doc="Until when it lets in; null: for ever.")
    revoked: Mapped[datetime | None] = mapped_column(doc="Since when it lets nobody in any more.")
    used: Mapped[datetime | None] = mapped_column(doc="When it was last used, to the minute; null: never.")


class CsrfToken(Row):
    """Shows that a request comes from a page of ours: another site can send requests, but not read this first."""

    __tablename__ = "csrf_token"
    __node__ = False  # a token is shown once, to its client

    client: Mapped[str] = mapped_column(unique=True, doc="Whom it was given to, as the client calls itself.")
    token: Mapped[str] = mapped_column(doc="The token.")
    expiration: Mapped[datetime] = mapped_column(doc="Until when it is accepted.")
