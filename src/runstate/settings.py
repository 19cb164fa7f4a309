"""Settings of a server, read from RUNSTATE_* in the environment and from the options of a command."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from ipaddress import ip_network
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
    r"RUNSTATE_(API_KEY|URL|RESULTS_FOLDER|WEB|SITE|TLS|BIND|REPLICAS|PROXY_\w+|ORACLE|THOROUGH|TEST_\w+"
    r"|(\w+_)?(SERVICE_HOST|SERVICE_PORT|SERVICE_PORT_\w+|PORT|PORT_\d+_\w+))"
)
"""Variables with the prefix that are not settings: those of clients, of the build, of the proxy and of tests; and those
that Kubernetes sets for each Service whose name begins with `runstate`.
"""
ADDRESS_OF_SERVICE: Final = re.compile(r"(tcp|udp|sctp)://.*")
"""The value to which Kubernetes sets RUNSTATE_PORT if there is a Service `runstate`."""
SECRET: Final = frozenset({"auth_string", "database_url", "database_direct_url", "secret_keys"})
"""Settings whose values are left out of error messages."""
SIMILAR: Final = 0.85
"""Minimum similarity, from 0 to 1, at which a variable without the prefix is reported as a misspelt setting."""


def _without_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _split(value: Any) -> Any:
    return tuple(each.strip() for each in value.split(",") if each.strip()) if isinstance(value, str) else value


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _checked(check: Callable[[Any], object]) -> AfterValidator:
    """Return a validator that runs a check on a value that is not None and returns the value unchanged."""

    def validate(value: Any) -> Any:
        try:
            if value is not None:
                check(value)
        except ConfigurationError as error:
            # Pydantic collects ValueErrors only, and all mistakes are reported at once.
            raise ValueError(str(error)) from error
        return value

    return AfterValidator(validate)


def check_auth_string(value: SecretStr) -> None:
    """Raise ConfigurationError unless a value is empty or `user:password`. An empty value means no credentials."""
    user, _, password = value.get_secret_value().partition(":")
    if value.get_secret_value():
        if not password:
            raise ConfigurationError("should be `user:password`, with a non-empty password.")
        check_name(user)


def check_origins(origins: tuple[str, ...]) -> None:
    """Raise ConfigurationError unless each text is an origin or `*`."""
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (not parts.scheme or not parts.netloc or parts.path.strip("/") or parts.query):
            raise ConfigurationError(f"should contain origins such as https://app.example, not `{origin}`.")


def check_networks(networks: tuple[str, ...]) -> None:
    """Raise ConfigurationError unless each text is an IP address or network."""
    for network in networks:
        try:
            ip_network(network)
        except ValueError as error:
            raise ConfigurationError(f"should contain networks such as 10.0.0.0/8: {error}.") from None


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""Comma-separated texts."""


class Settings(BaseModel, frozen=True, extra="forbid"):
    """Settings of a server."""

    workers: int = Field(default=1, ge=1, description="Number of processes that serve; more than one needs PostgreSQL.")
    worker_timeout_seconds: float = Field(
        default=30,
        gt=0,
        description="Seconds without a sign of life after which one of several processes is killed and replaced.",
    )
    database_url: Annotated[str, _checked(parse)] = Field(
        default="sqlite+aiosqlite:///./runstate.db",
        description="SQLite file (`sqlite:///file`), or `postgresql://user:password@host/name`.",
    )
    database_schema: str | None = Field(
        default=None,
        min_length=1,
        max_length=40,
        description="PostgreSQL schema of the tables; migrations create it. By default `public`, or the first of the"
        " search path.",
    )
    database_direct_url: Annotated[str | None, _checked(parse)] = Field(
        default=None,
        description="URL of the same PostgreSQL without a pooler, for notifications between replicas; needed only if"
        " `database_url` leads to a pooler such as PgBouncer.",
    )
    database_connections: int = Field(
        default=20,
        ge=16,
        description="Maximum number of connections to PostgreSQL per process, besides two that listen.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=4200, ge=0, le=65535, description="Port to listen on; 0 for any free port.")
    public_url: str | None = Field(
        default=None, description="URL of the server for its clients, such as https://runs.example.org."
    )
    authentication: Annotated[Literal["off", "keys"], BeforeValidator(_without_case)] = Field(
        default="off", description="`keys`: clients must send an API key created with `runstate keys create`."
    )
    auth_string: Annotated[SecretStr | None, _checked(check_auth_string)] = Field(
        default=None,
        description="HTTP Basic credentials (`user:password`) accepted in addition to API keys. Requests with neither"
        " are rejected.",
    )
    secret_keys: SecretStr | None = Field(
        default=None,
        description="Comma-separated keys of the secrets of blocks, from `runstate secrets new-key`. The first one"
        " encrypts.",
    )
    secret_keys_file: str | None = Field(
        default=None,
        description="File with such keys, one a line, readable by its owner only. By default, a server with SQLite on"
        " loopback creates one beside the database.",
    )
    insecure: bool = Field(
        default=False, description="If true, the server serves other machines without authentication."
    )
    allowed_hosts: Names = Field(
        default=(),
        description="Comma-separated host names that the server answers to. By default its own names on loopback"
        " without authentication, otherwise any.",
    )
    allowed_origins: Annotated[Names, _checked(check_origins)] = Field(
        default=(),
        description="Comma-separated origins of other sites whose pages may send requests (CORS, WebSocket).",
    )
    trusted_proxies: Annotated[Names, _checked(check_networks)] = Field(
        default=(),
        description="Comma-separated networks of proxies whose `X-Forwarded-For` names the client; for the IP"
        " allowlist.",
    )
    csrf: bool = Field(default=False, description="If true, mutations over HTTP need a token from `createCsrfToken`.")
    services: Annotated[str, BeforeValidator(_without_case), _checked(chosen)] = Field(
        default="all", description="Background services that run: `all`, `off`, or comma-separated names."
    )
    service_intervals: Annotated[
        dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(_json), _checked(partial(timed, SERVICES))
    ] = Field(default={}, description='Seconds between the rounds of services, as JSON by name: {"late": 5}.')
    late_after_seconds: float = Field(
        default=15, ge=0, description="Seconds after its scheduled time at which a run becomes Late."
    )
    scheduler_min_runs: int = Field(
        default=3, ge=1, le=1000, description="Number of runs that each schedule has ahead, at least."
    )
    scheduler_max_runs: int = Field(
        default=100, ge=1, le=999, description="Number of runs that each schedule has ahead, at most."
    )
    scheduler_min_scheduled_seconds: float = Field(
        default=3600, ge=0, description="Seconds for which each schedule has runs ahead, at least."
    )
    scheduler_max_scheduled_days: float = Field(
        default=100, gt=0, le=36_525, description="Days for which a schedule has runs ahead, at most."
    )
    scheduler_catch_up_seconds: float = Field(
        default=0,
        ge=0,
        le=31_622_400,
        description="Seconds in the past for which dates are scheduled that were missed while no server was running.",
    )
    crash_runs_of_expired_claims: bool = Field(
        default=True,
        description="Whether RUNNING runs crash when the claim of their worker expires. Otherwise only their "
        "heartbeats decide.",
    )
    idempotency_retention_hours: float = Field(
        default=24,
        ge=24,
        description="Hours for which the answer to a proposal with an idempotency key is kept.",
    )
    transition_log_retention_days: float = Field(
        default=7, gt=0, description="Days for which the log of transitions is kept; older cursors expire."
    )
    action_allowed_networks: Annotated[Names, _checked(check_networks)] = Field(
        default=(),
        description="Comma-separated networks that webhooks and notifications of automations may connect to, besides "
        "public addresses, such as 10.0.0.0/8.",
    )
    automation_firing_retention_days: float = Field(
        default=30, gt=0, description="Days for which firings of automations and their actions are kept."
    )
    run_log_retention_days: float = Field(
        default=30, ge=0, description="Days for which logs of runs are kept; 0 keeps them forever."
    )
    slow_subscriber_timeout_seconds: float = Field(
        default=60,
        gt=0,
        description="Seconds for which a subscriber that is behind may read nothing; then its subscription ends.",
    )
    statement_timeout_seconds: float = Field(
        default=10, gt=0, description="Seconds after which a database statement is ended."
    )
    graphiql: bool | None = Field(
        default=None,
        description="Whether the live page is served at `/`, and GraphiQL at `/graphiql` and to browsers at `/graphql`."
        " By default only if the server listens on loopback.",
    )
    prefect_api: bool | None = Field(
        default=None,
        description="Whether clients of Prefect are served at `/api`. By default only if the server listens on"
        " loopback.",
    )
    max_body_bytes: int = Field(default=2**20, gt=0, description="Maximum size of a request body, in bytes.")
    request_head_timeout_seconds: float = Field(
        default=15, gt=0, description="Seconds in which the head of a request has to arrive."
    )
    request_body_timeout_seconds: float = Field(
        default=30,
        gt=0,
        description="Seconds in which the body of a request has to arrive; each 16 KB add a second.",
    )
    max_connections: int = Field(default=10_000, gt=0, description="Maximum number of client connections per process.")
    max_connections_per_address: int = Field(
        default=1_000,
        gt=0,
        description="Maximum number of client connections from one address; a proxy is one address.",
    )
    max_buffered_bytes: int = Field(
        default=2**25,
        gt=0,
        description="Maximum size of all incomplete requests of a process together, in bytes.",
    )
    max_document_characters: int = Field(
        default=65_536, gt=0, description="Maximum length of a GraphQL document, in characters."
    )
    max_document_tokens: int = Field(default=5_000, gt=0, description="Maximum number of tokens in a document.")
    max_depth: int = Field(default=16, gt=0, description="Maximum depth of nested fields.")
    max_aliases: int = Field(default=100, ge=0, description="Maximum number of aliases in an operation.")
    max_root_fields: int = Field(default=20, gt=0, description="Maximum number of root fields in an operation.")
    max_directives: int = Field(default=50, ge=0, description="Maximum number of directives in an operation.")
    max_list_items: int = Field(default=1_000, gt=0, description="Maximum number of items in a list of an input.")
    max_cost: int = Field(
        default=50_000,
        gt=0,
        description="Maximum number of objects that an answer may contain, computed before execution.",
    )
    max_answer_bytes: int = Field(
        default=ANSWER_BYTES,
        gt=0,
        description="Maximum size of an answer, and of the values that are read for it, in bytes.",
    )
    max_validation_errors: int = Field(
        default=5, gt=0, description="Maximum number of validation errors that are reported."
    )
    operation_timeout_seconds: float = Field(
        default=30, gt=0, description="Seconds after which a query or mutation times out."
    )
    max_concurrent_operations: int = Field(
        default=1_000, gt=0, description="Maximum number of queries and mutations in flight."
    )
    max_subscriptions: int = Field(default=10_000, gt=0, description="Maximum number of open subscriptions.")
    max_operations_per_socket: int = Field(
        default=100, gt=0, description="Maximum number of concurrent operations on a WebSocket."
    )
    introspection: bool | None = Field(
        default=None,
        description="Whether clients may query the schema. By default only if the server listens on loopback.",
    )
    field_suggestions: bool | None = Field(
        default=None,
        description="Whether validation errors suggest similar names. By default only if the server listens on"
        " loopback.",
    )
    get_csrf_prevention: bool = Field(
        default=True, description="Whether GET requests must send a header such as `GraphQL-Require-Preflight`."
    )
    plans: bool = Field(
        default=True,
        description="If false, graphql-core executes every operation, without plans and the fast path: slower, for "
        "support.",
    )
    metrics: bool = Field(default=True, description="Whether `/metrics` is served, in the format of Prometheus.")
    trace_documents: bool = Field(
        default=False, description="Whether spans contain the documents of operations, with values removed."
    )
    shutdown_drain_seconds: float = Field(
        default=0, ge=0, description="Seconds for which `/readyz` answers 503 before the server closes connections."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_without_case)] = Field(
        default="info", description="Minimum level of log lines: `debug`, `info`, `warning` or `error`."
    )
    log_format: Annotated[Literal["auto", "text", "json"], BeforeValidator(_without_case)] = Field(
        default="auto",
        description="Format of log lines: `text`, `json`, or `auto`: text on a terminal, JSON elsewhere.",
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
    """Return the settings from the environment. Options that are not None take precedence.

    Raise ConfigurationError with a line for each invalid value.
    """
    # An option that is not used must not hide the variable.
    options = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**(_from_environment(environ) | options))
    except ValidationError as error:
        mistakes = [_mistake(each["loc"], each["input"], each["msg"], options) for each in error.errors()]
        # Pydantic's error would show the values of secrets.
        raise ConfigurationError("\n".join(mistakes)) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of settings in the environment, without surrounding white space. Empty values are not set."""
    values = {name.upper(): value.strip() for name, value in environ.items()}
    if ADDRESS_OF_SERVICE.fullmatch(values.get(f"{PREFIX}PORT", "")):
        # Kubernetes sets it in every pod of the namespace, so it is not meant for this server.
        del values[f"{PREFIX}PORT"]
    found = {name: values.get(PREFIX + name.upper()) for name in Settings.model_fields}
    return {name: value for name, value in found.items() if value}


def _mistake(location: tuple[int | str, ...], value: Any, message: str, options: Mapping[str, Any]) -> str:
    name, *inside = map(str, location)
    variable = f"--{name.replace('_', '-')}" if name in options else PREFIX + name.upper()
    # A message must not show a password.
    shown = "" if name in SECRET else f"={value}"
    where = "".join(f" at `{each}`" for each in inside)
    message = message.removeprefix("Value error, ").removeprefix("Input ").removesuffix(".")
    return f"{variable}{shown}{where}: {message}."


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return variables that resemble settings but are unknown, each with the setting that is probably meant, if any."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    others = [name for name in environ if name.upper() not in known and not OTHERS.fullmatch(name.upper())]
    similar = {name: _similar(name.upper(), known) for name in others}
    # A variable without the prefix is reported only if it resembles a setting, such as RUNSTAT_PORT.
    return {name: found for name, found in similar.items() if found or name.upper().startswith(PREFIX)}


def _similar(name: str, known: Iterable[str]) -> str | None:
    """Return the setting that a variable probably means; None if no setting is similar enough."""
    if name.startswith(PREFIX):
        found = get_close_matches(name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], 1)
        return PREFIX + found[0] if found else None
    # Strict, because other programs have variables such as PORT or HOST.
    return next(iter(get_close_matches(name, known, 1, SIMILAR)), None)
