"""Database URLs, in the forms that people, hosting providers and other tools use."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import sqlalchemy as sa

from runstate.errors import ConfigurationError

SQLITE: Final = "sqlite+aiosqlite"
POSTGRESQL: Final = "postgresql+asyncpg"
DRIVERS: Final = {
    "sqlite": SQLITE,
    SQLITE: SQLITE,
    "postgres": POSTGRESQL,
    "postgresql": POSTGRESQL,
    POSTGRESQL: POSTGRESQL,
}
"""SQLAlchemy drivers by URL scheme."""
TO_DRIVER: Final = frozenset(
    {
        *("host", "port", "user", "password", "dbname", "passfile", "target_session_attrs", "krbsrvname", "gsslib"),
        *("sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version"),
    }
)
"""Parameters that asyncpg interprets like libpq."""
TRANSLATED: Final = frozenset({"application_name", "connect_timeout", "options", "ssl"})
"""Parameters that asyncpg does not know, or knows by another name."""
WITHOUT_EFFECT: Final = {
    "channel_binding": {"disable", "prefer"},
    "gssencmode": {"disable", "prefer"},
    "client_encoding": {"auto", "utf8", "utf-8"},
}
"""Parameters of libpq that are accepted with these values, which ask for what asyncpg does."""
OF_SQLITE: Final = frozenset({"timeout", "uri", "mode", "cache", "immutable", "nolock", "vfs"})
"""Parameters of the driver and of SQLite itself."""
PASSWORD: Final = re.compile(r"(?<=:)[^:@/]*(?=@)|(?<=password=)[^&]*")
OPTION: Final = re.compile(r"(?:-c\s*|--)([\w.]+)=((?:\\.|\S)*)\s*")
CONNECT_SECONDS: Final = 5.0
"""Default of `connect_timeout`."""


@dataclass(frozen=True, slots=True)
class Address:
    """A database URL, parsed."""

    url: sa.URL
    """The URL for SQLAlchemy; of several PostgreSQL hosts, it has the first."""
    shown: str
    """The URL without its password."""
    dsn: str
    """PostgreSQL: the URL for asyncpg."""
    settings: dict[str, str]
    """PostgreSQL: session settings that the URL contains."""
    connect_seconds: float = CONNECT_SECONDS
    """PostgreSQL: timeout of a connection attempt."""

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database; None for an in-memory database and for PostgreSQL."""
        in_file = self.url.drivername == SQLITE and self.url.database not in {None, "", ":memory:"}
        return Path(str(self.url.database)) if in_file else None


def parse(text: str) -> Address:
    """Parse a database URL. Raise ConfigurationError if it is malformed or has an unknown parameter."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in DRIVERS:
        raise ConfigurationError(
            "A database URL must start with sqlite:///, sqlite+aiosqlite:///, postgres://, postgresql:// or"
            f" postgresql+asyncpg://, not with {scheme.partition(':')[0]}."
        )
    shown = f"{scheme}://{PASSWORD.sub('***', rest)}"
    try:
        return _sqlite(rest, shown) if DRIVERS[scheme] == SQLITE else _postgresql(rest, shown)
    except ValueError as error:
        raise ConfigurationError(f"The database URL {shown} is malformed: {error}.") from None


def _sqlite(rest: str, shown: str) -> Address:
    url = sa.make_url(f"{SQLITE}://{rest}")
    _check_known(url.query, OF_SQLITE, shown)
    return Address(url, shown, "", {})


def _postgresql(rest: str, shown: str) -> Address:
    parts = urlsplit(f"postgresql://{rest}")
    # urlsplit takes everything after # for a fragment, even inside a password.
    if parts.fragment:
        raise ValueError("write # as %23")
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    asked = {name: value for name, value in parameters.items() if value.lower() in WITHOUT_EFFECT.get(name, ())}
    parameters = {name: value for name, value in parameters.items() if name not in asked}
    _check_known(parameters, TO_DRIVER | TRANSLATED, shown)
    # In a URL, asyncpg knows this parameter by the other name only.
    if "ssl" in parameters:
        parameters["sslmode"] = parameters.pop("ssl")
    settings = _options(parameters.pop("options", ""))
    if name := parameters.pop("application_name", None):
        settings["application_name"] = name
    seconds = float(parameters.pop("connect_timeout", 0) or 0) or CONNECT_SECONDS
    name = parameters.pop("dbname", unquote(parts.path.removeprefix("/")))
    path = f"/{quote(name)}" if name else ""  # asyncpg would use the path `/` as the name of the database
    # SQLAlchemy does not parse several hosts; asyncpg gets the whole URL.
    first = sa.make_url(f"{POSTGRESQL}://{parts.netloc.split(',')[0]}{path}")
    dsn = parts._replace(path=path, query=urlencode(parameters)).geturl()
    return Address(first.update_query_dict(parameters), shown, dsn, settings, seconds)


def _check_known(parameters: object, known: frozenset[str], shown: str) -> None:
    unknown = sorted({*parameters} - known)  # type: ignore[misc]
    if unknown:
        names = ", ".join(f"`{each}`" for each in unknown)
        raise ConfigurationError(
            f"The database URL {shown} has unknown parameters: {names}."
            f" The known parameters are {', '.join(sorted(known))}."
        )


def _options(text: str) -> dict[str, str]:
    """Return the settings of an option string like `-c name=value --name=value`; a backslash escapes a space."""
    found, end = {}, len(text) - len(text.lstrip())
    for match in OPTION.finditer(text, end):
        # Text between two options is no option; it is refused below.
        if match.start() != end:
            break
        found[match[1]], end = re.sub(r"\\(.)", r"\1", match[2]), match.end()
    if end != len(text):
        raise ValueError(f"options must consist of -c name=value, not `{text[end:]}`")
    return found
