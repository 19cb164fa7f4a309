"""Access to the server: the check of the settings, the middleware, and the principals of requests and sockets."""

from collections.abc import Callable
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any, Final

from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import Scope

from runstate.core.access.credentials import UNRESTRICTED, CredentialCache, Principal
from runstate.database import Database
from runstate.errors import ConfigurationError
from runstate.graphql.transport.addresses import AddressFilter
from runstate.graphql.transport.authentication import Admission
from runstate.graphql.transport.cors import ANY, LOOPBACK, guards
from runstate.graphql.transport.field_lines import FieldLines
from runstate.settings import Settings
from runstate.web.pages import is_page_path

OPEN: Final = frozenset({"/healthz", "/readyz", "/health"})
"""Paths that need no credential."""
UNAUTHENTICATED: Final = Principal("nobody", [])
"""The principal of a socket whose client has not sent `connection_init` yet."""
UNPROTECTED: Final = (
    "On {host} the server would serve other machines without authentication. Set RUNSTATE_AUTHENTICATION=keys and"
    " create a key with `runstate keys create`, or set RUNSTATE_AUTH_STRING=user:password. To serve without"
    " authentication, use --insecure or RUNSTATE_INSECURE=true."
)


def check_exposure(settings: Settings) -> None:
    """Raise ConfigurationError if the settings allow access without authentication that is not declared as intended."""
    if needs_key(settings) or settings.insecure:
        return
    if not is_loopback(settings.host):
        raise ConfigurationError(UNPROTECTED.format(host=settings.host))
    # Loopback does not help here: the pages run in browsers on this machine.
    if ANY in settings.allowed_origins:
        raise ConfigurationError(
            "RUNSTATE_ALLOWED_ORIGINS=* without authentication gives every web page full access: list the origins."
        )


def is_loopback(host: str) -> bool:
    """Return whether an address is reachable from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        # Other names can resolve to any address.
        return host == "localhost"


def needs_key(settings: Settings) -> bool:
    """Return whether clients must authenticate."""
    return settings.authentication != "off" or password_of(settings) is not None


def password_of(settings: Settings) -> str | None:
    """Return the HTTP Basic credentials, `user:password`; None if they are not set or empty."""
    return settings.auth_string.get_secret_value() or None if settings.auth_string else None


def keyring_of(settings: Settings, database: Database, clock: Callable[[], datetime]) -> CredentialCache | None:
    """Return the cache of valid credentials; None if clients need not authenticate."""
    return CredentialCache(database.keys, clock, auth_string=password_of(settings)) if needs_key(settings) else None


def middleware(settings: Settings) -> list[Middleware]:
    """Return the middleware, outermost first."""
    # Against DNS rebinding: names of other sites that resolve to loopback are rejected.
    local = LOOPBACK if not needs_key(settings) and is_loopback(settings.host) else ()
    # Before authentication, so that nobody can guess keys from elsewhere.
    networks = [ip_network(each) for each in settings.trusted_proxies]
    entrance = Middleware(AddressFilter, is_open=is_health_path, trusted_proxies=networks)
    before = [Middleware(FieldLines), entrance, *guards(settings.allowed_hosts or local, settings.allowed_origins)]
    if needs_key(settings):
        # After CORS, because preflight requests carry no credentials.
        is_open = is_public_path if shows_pages(settings) else is_health_path
        before.append(Middleware(Admission, is_open=is_open, basic=password_of(settings) is not None))
    return before


def shows_pages(settings: Settings) -> bool:
    """Return whether GraphiQL is served: by default only on loopback."""
    return is_loopback(settings.host) if settings.graphiql is None else settings.graphiql


def serves_prefect(settings: Settings) -> bool:
    """Return whether the API of Prefect is served: by default only on loopback."""
    return is_loopback(settings.host) if settings.prefect_api is None else settings.prefect_api


def is_health_path(scope: Scope) -> bool:
    """Return whether a request is for a health check."""
    return scope["path"].rstrip("/") in OPEN


def is_public_path(scope: Scope) -> bool:
    """Return whether a request needs no credential: health checks, and pages, which contain no data."""
    return is_health_path(scope) or is_page_path(scope)


def initial_principal(credentials: CredentialCache | None, connection: HTTPConnection) -> Principal:
    """Return the principal of a request, or of a socket before its first message."""
    principal: Principal = connection.scope.get("principal", UNAUTHENTICATED if credentials else UNRESTRICTED)
    return principal


async def admit(credentials: CredentialCache, connection: HTTPConnection, said: dict[str, Any]) -> Principal:
    """Return the principal of a socket, from the payload of `connection_init` or the headers of the opening request.

    Raise Unauthenticated if the credential is missing or invalid.
    """
    # Names of header fields have no case, and clients send this one in either.
    named = {name.lower(): value for name, value in said.items()}
    given = named.get("authorization", connection.headers.get("authorization"))
    return await credentials.admit(given if isinstance(given, str) else None)
