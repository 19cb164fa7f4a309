"""Settings of a server: declared once, read from RUNSTATE_* in the environment and from options of a command."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, ValidationError

from runstate.core.access.keys import check_name
from runstate.database import Database
from runstate.database.address import parse
from runstate.database.budget import ANSWER_BYTES
from runstate.errors import ConfigurationError
from runstate.services.runner import SERVICES, chosen, timed

PREFIX: Final = "RUNSTATE_"
OTHERS: Final = re.compile(
    r"RUNSTATE_(API_KEY|WEB|SITE|TLS|BIND|REPLICAS|PROXY_\w+|ORACLE|THOROUGH|TEST_\w+"
    r"|(\w+_)?(SERVICE_HOST|SERVICE_PORT|SERVICE_PORT_\w+|PORT|PORT_\d+_\w+))"
)
"""Variables that are no settings: those of clients, of the build, of the proxy and of tests; and those that Kubernetes
sets for each Service whose name begins with `runstate`.
"""
ADDRESS_OF_SERVICE: Final = re.compile(r"(tcp|udp|sctp)://.*")
"""The value that Kubernetes gives RUNSTATE_PORT if there is a Service `runstate`."""
SECRET: Final = frozenset({"auth_string", "database_url", "database_direct_url"})
"""Settings whose values are not repeated in messages."""
SIMILAR: Final = 0.85
"""The least similarity of a variable without the prefix to a setting, from 0 to 1."""


def _without_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _split(value: Any) -> Any:
    return tuple(each.strip() for each in value.split(",") if each.strip()) if isinstance(value, str) else value


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _checked(check: Callable[[Any], object]) -> AfterValidator:
    """Return a validator that runs a check on a value that is set, and keeps it."""

    def validate(value: Any) -> Any:
        try:
            if value is not None:
                check(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return value

    return AfterValidator(validate)


def check_auth_string(value: SecretStr) -> None:
    """Raise ConfigurationError unless a value is the name of a user and a password; an empty one is as good as none."""
    user, _, password = value.get_secret_value().partition(":")
    if value.get_secret_value():
        if not password:
            raise ConfigurationError("should be `user:password`, with a password that is not empty.")
        check_name(user)


def check_origins(origins: tuple[str, ...]) -> None:
    """Raise ConfigurationError unless each text is an origin or `*`."""
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (not parts.scheme or not parts.netloc or parts.path.strip("/") or parts.query):
            raise ConfigurationError(f"should have origins such as https://app.example, not `{origin}`.")


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""Texts with commas between."""


class Settings(BaseModel, frozen=True, extra="forbid"):
    """Settings of a server."""

    workers: int = Field(default=1, ge=1, description="How many processes serve; several need PostgreSQL.")
    database_url: Annotated[str, _checked(parse)] = Field(
        default="sqlite+aiosqlite:///./runstate.db",
        description="Where it is kept: sqlite:///file or postgresql://user:password@host/name.",
    )
    database_schema: str | None = Field(
        default=None,
        min_length=1,
        max_length=40,
        description="The schema of PostgreSQL that the tables are in; migrations create it. Without: `public`, or the"
        " first one of the search path.",
    )
    database_direct_url: Annotated[str | None, _checked(parse)] = Field(
        default=None,
        description="Where the same PostgreSQL is reached without a pooler, for notifications between replicas; needed"
        " only if there is a pooler such as PgBouncer in `database_url`.",
    )
    database_connections: int = Field(
        default=20,
        ge=16,
        description="How many connections to PostgreSQL a process has at most, besides two that listen.",
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=4200, ge=0, le=65535, description="The port to listen on; 0: any that is free.")
    authentication: Annotated[Literal["off", "keys"], BeforeValidator(_without_case)] = Field(
        default="off", description="Whether clients need a key, made with `runstate keys`."
    )
    auth_string: Annotated[SecretStr | None, _checked(check_auth_string)] = Field(
        default=None,
        description="`user:password` that lets in besides keys, by HTTP Basic; who has neither stays out.",
    )
    insecure: bool = Field(
        default=False, description="Whether everybody who reaches the server may do everything, on any address."
    )
    allowed_hosts: Names = Field(
        default=(), description="Names that the server goes by, with commas between; on loopback its own unless given."
    )
    allowed_origins: Annotated[Names, _checked(check_origins)] = Field(
        default=(), description="Origins of other sites whose pages may ask, with commas between: CORS and WebSockets."
    )
    csrf: bool = Field(
        default=False, description="Whether mutations over HTTP need a token that `createCsrfToken` gives."
    )
    services: Annotated[str, BeforeValidator(_without_case), _checked(chosen)] = Field(
        default="all", description="Which services run in the background: `all`, `off`, or names with commas between."
    )
    service_intervals: Annotated[
        dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(_json), _checked(partial(timed, SERVICES))
    ] = Field(
        default={}, description='How many seconds pass between the rounds of a service, by its name: {"late": 5}.'
    )
    late_after_seconds: float = Field(
        default=15, ge=0, description="By how many seconds a scheduled run has to miss its time to be Late."
    )
    idempotency_retention_hours: float = Field(
        default=24, ge=24, description="For how many hours a proposal with an idempotency key is answered as it was."
    )
    transition_log_retention_days: float = Field(
        default=7, gt=0, description="For how many days the log of transitions, and so cursors into it, is kept."
    )
    slow_subscriber_timeout_seconds: float = Field(
        default=60, gt=0, description="For how long a subscriber that is behind may take nothing before it is let go."
    )
    statement_timeout_seconds: float = Field(
        default=10, gt=0, description="After how many seconds a statement of the database is ended."
    )
    graphiql: bool | None = Field(
        default=None,
        description="Whether people find the page GraphiQL at /graphiql, and browsers that ask for /graphql. "
        "Unless set: only while listening on loopback.",
    )
    max_body_bytes: int = Field(default=2**20, gt=0, description="How large the body of a request may be.")
    request_head_timeout_seconds: float = Field(
        default=15, gt=0, description="Seconds in which the head of a request has to arrive."
    )
    request_body_timeout_seconds: float = Field(
        default=30,
        gt=0,
        description="Seconds in which the body has to arrive; a large one has a second more per 16 KB.",
    )
    max_connections: int = Field(
        default=10_000, gt=0, description="How many connections of clients a process has at most."
    )
    max_connections_per_address: int = Field(
        default=1_000, gt=0, description="How many of them come from one address; all of them do through a proxy."
    )
    max_buffered_bytes: int = Field(
        default=2**25, gt=0, description="How many bytes of incomplete requests a process holds at most."
    )
    max_document_characters: int = Field(default=65_536, gt=0, description="How long a document may be.")
    max_document_tokens: int = Field(default=5_000, gt=0, description="How many tokens a document may have.")
    max_depth: int = Field(default=16, gt=0, description="How deep fields may be nested.")
    max_aliases: int = Field(default=100, ge=0, description="How many aliases an operation may have.")
    max_root_fields: int = Field(default=20, gt=0, description="How many fields an operation may have at its root.")
    max_directives: int = Field(default=50, ge=0, description="How many directives an operation may have.")
    max_list_items: int = Field(default=1_000, gt=0, description="How many values a list in an input may have.")
    max_cost: int = Field(default=50_000, gt=0, description="How many objects an answer may hold, as reckoned before.")
    max_answer_bytes: int = Field(
        default=ANSWER_BYTES, gt=0, description="Largest number of bytes of an answer, and of those that are read for it."
    )
    max_validation_errors: int = Field(
        default=5, gt=0, description="How many mistakes in a document or in variables are told."
    )
    operation_timeout_seconds: float = Field(
        default=30, gt=0, description="After how many seconds a query or a mutation is given up."
    )
    max_concurrent_operations: int = Field(
        default=1_000, gt=0, description="How many queries and mutations are answered at once."
    )
    max_subscriptions: int = Field(default=10_000, gt=0, description="How many subscriptions may be open at once.")
    max_operations_per_socket: int = Field(
        default=100, gt=0, description="How many operations a WebSocket carries at once."
    )
    introspection: bool | None = Field(
        default=None, description="Whether the schema can be asked for; unless set: only while listening on loopback."
    )
    field_suggestions: bool | None = Field(
        default=None, description="Whether mistakes are told what may be meant; unless set: only on loopback."
    )
    get_csrf_prevention: bool = Field(
        default=True, description="Whether GET needs a header that browsers do not send to another site unasked."
    )
    plans: bool = Field(
        default=True,
        description="Whether plans and the fast path execute what they can; if false, graphql-core executes "
        "everything, more slowly: for support.",
    )
    metrics: bool = Field(default=True, description="Whether /metrics tells Prometheus what was counted and timed.")
    trace_documents: bool = Field(
        default=False, description="Whether spans have the documents of operations, without the values in them."
    )
    shutdown_drain_seconds: float = Field(
        default=0, ge=0, description="For how many seconds /readyz says no before the server lets go of its clients."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_without_case)] = Field(
        default="info", description="What is logged."
    )
    log_format: Annotated[Literal["auto", "text", "json"], BeforeValidator(_without_case)] = Field(
        default="auto", description="How it is logged: for people or programs; `auto`: for people on a terminal."
    )


def database_of(settings: Settings) -> Database:
    """Return the database that the settings name."""
    return Database(
        settings.database_url,
        statement_timeout_seconds=settings.statement_timeout_seconds,
        connections=settings.database_connections,
        schema=settings.database_schema,
        direct_url=settings.database_direct_url,
    )


def load(environ: Mapping[str, str], **options: Any) -> Settings:
    """Return the settings from the environment, and from options that are not None in their place.

    Raise ConfigurationError with a line for each mistake.
    """
    options = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**(_from_environment(environ) | options))
    except ValidationError as error:
        mistakes = [_mistake(each["loc"], each["input"], each["msg"], options) for each in error.errors()]
        raise ConfigurationError("\n".join(mistakes)) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of settings in the environment; an empty one is not set, and white space around is no part."""
    values = {name.upper(): value.strip() for name, value in environ.items()}
    if ADDRESS_OF_SERVICE.fullmatch(values.get(f"{PREFIX}PORT", "")):
        del values[f"{PREFIX}PORT"]
    found = {name: values.get(PREFIX + name.upper()) for name in Settings.model_fields}
    return {name: value for name, value in found.items() if value}


def _mistake(location: tuple[int | str, ...], value: Any, message: str, options: Mapping[str, Any]) -> str:
    name, *inside = map(str, location)
    variable = f"--{name.replace('_', '-')}" if name in options else PREFIX + name.upper()
    shown = "" if name in SECRET else f"={value}"
    where = "".join(f" at `{each}`" for each in inside)
    message = message.removeprefix("Value error, ").removeprefix("Input ").removesuffix(".")
    return f"{variable}{shown}{where}: {message}."


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return variables that look like settings and are none, each with the setting that is probably meant, if any."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    others = [name for name in environ if name.upper() not in known and not OTHERS.fullmatch(name.upper())]
    similar = {name: _similar(name.upper(), known) for name in others}
    return {name: found for name, found in similar.items() if found or name.upper().startswith(PREFIX)}


def _similar(name: str, known: Iterable[str]) -> str | None:
    """Return the setting that a variable is probably meant for."""
    if name.startswith(PREFIX):
        found = get_close_matches(name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], 1)
        return PREFIX + found[0] if found else None
    return next(iter(get_close_matches(name, known, 1, SIMILAR)), None)
