"""Who can reach the server, and who is let in: what the settings say about it."""

from collections.abc import Callable
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final

from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import Scope

from runstate.core.access.credentials import UNRESTRICTED, CredentialCache, Principal
from runstate.database import Database
from runstate.errors import ConfigurationError
from runstate.graphql.transport.authentication import Admission
from runstate.graphql.transport.cors import ANY, LOOPBACK, guards
from runstate.graphql.transport.field_lines import FieldLines
from runstate.settings import Settings
from runstate.web.pages import is_page_path

OPEN: Final = frozenset({"/healthz", "/readyz", "/health"})
"""Paths that need no key."""
UNAUTHENTICATED: Final = Principal("nobody", [])
"""Who has opened a socket and not said yet who they are."""
UNPROTECTED: Final = (
    "On {host} everybody who reaches this machine could do everything. Set RUNSTATE_AUTHENTICATION=keys and make a key"
    " with `runstate keys create`, or set RUNSTATE_AUTH_STRING=user:password; or say that this is meant: --insecure or"
    " RUNSTATE_INSECURE=true."
)


def check_exposure(settings: Settings) -> None:
    """Raise ConfigurationError if more clients could get in than is meant."""
    if needs_key(settings) or settings.insecure:
        return
    if not is_loopback(settings.host):
        raise ConfigurationError(UNPROTECTED.format(host=settings.host))
    if ANY in settings.allowed_origins:
        raise ConfigurationError("Without keys every page that somebody opens could do everything: name the origins.")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def needs_key(settings: Settings) -> bool:
    """Whether clients have to say who they are."""
    return settings.authentication != "off" or password_of(settings) is not None


def password_of(settings: Settings) -> str | None:
    """The user and the password that let in; null: there are none, nothing is as good as none."""
    return settings.auth_string.get_secret_value() or None if settings.auth_string else None


def keyring_of(settings: Settings, database: Database, clock: Callable[[], datetime]) -> CredentialCache | None:
    """What lets clients in; null: everybody may come in."""
    return CredentialCache(database.keys, clock, auth_string=password_of(settings)) if needs_key(settings) else None


def middleware(settings: Settings) -> list[Middleware]:
    """What stands before everything else."""
    local = LOOPBACK if not needs_key(settings) and is_loopback(settings.host) else ()
    before = [Middleware(FieldLines), *guards(settings.allowed_hosts or local, settings.allowed_origins)]
    if needs_key(settings):
        is_open = is_public_path if shows_pages(settings) else is_health_path
        before.append(Middleware(Admission, is_open=is_open, basic=password_of(settings) is not None))
    return before


def shows_pages(settings: Settings) -> bool:
    """Whether GraphiQL is shown: where only this machine sees it, unless something else is said."""
    return is_loopback(settings.host) if settings.graphiql is None else settings.graphiql


def is_health_path(scope: Scope) -> bool:
    """Whether a request asks how the server is."""
    return scope["path"].rstrip("/") in OPEN


def is_public_path(scope: Scope) -> bool:
    """Whether everybody gets what is asked for: health, and pages, which know nothing of any run."""
    return is_health_path(scope) or is_page_path(scope)


def initial_principal(credentials: CredentialCache | None, connection: HTTPConnection) -> Principal:
    """Who asks, as far as it is known before the first message of a socket."""
    principal: Principal = connection.scope.get("principal", UNAUTHENTICATED if credentials else UNRESTRICTED)
    return principal


async def admit(credentials: CredentialCache, connection: HTTPConnection, said: dict[str, Any]) -> Principal:
    """Who opens a socket: as the first message on it says, or the request that it began with."""
    named = {name.lower(): value for name, value in said.items()}
    given = named.get("authorization", connection.headers.get("authorization"))
    return await credentials.admit(given if isinstance(given, str) else None)
