"""What can be set, each as RUNSTATE_* in the environment."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _listed(given: Any) -> Any:
    return tuple(each.strip() for each in given.split(",") if each.strip()) if isinstance(given, str) else given


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
"""Texts with commas between."""


class Settings(BaseSettings):
    """The settings of a server."""

    model_config = SettingsConfigDict(env_prefix="RUNSTATE_", env_ignore_empty=True, frozen=True)

    workers: int = Field(default=1, ge=1, description="How many processes serve; several need PostgreSQL.")
    database_url: str = Field(
        default="sqlite+aiosqlite:///./runstate.db",
        description="Where it is kept: sqlite+aiosqlite:///file or postgresql+asyncpg://user:password@host/name.",
    )
    database_connections: int = Field(
        default=20,
        ge=8,
        description="How many connections to PostgreSQL a process has at most, besides two that listen.",
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=4200, ge=0, le=65535, description="The port to listen on; 0: any that is free.")
    authentication: Literal["off", "keys"] = Field(
        default="off", description="Whether clients need a key, made with `runstate keys`."
    )
    auth_string: SecretStr | None = Field(
        default=None,
        description="`user:password` that lets in besides keys, by HTTP Basic; who has neither stays out.",
    )
    insecure: bool = Field(
        default=False, description="Whether everybody who reaches the server may do everything, on any address."
    )
    allowed_hosts: Names = Field(
        default=(), description="Names that the server goes by, with commas between; on loopback its own unless given."
    )
    allowed_origins: Names = Field(
        default=(), description="Origins of other sites whose pages may ask, with commas between: CORS and WebSockets."
    )
    csrf: bool = Field(
        default=False, description="Whether mutations over HTTP need a token that `createCsrfToken` gives."
    )
    services: str = Field(
        default="all", description="Which services run in the background: `all`, `off`, or names with commas between."
    )
    service_intervals: dict[str, Annotated[float, Field(gt=0)]] = Field(
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
    max_document_characters: int = Field(default=65_536, gt=0, description="How long a document may be.")
    max_document_tokens: int = Field(default=5_000, gt=0, description="How many tokens a document may have.")
    max_depth: int = Field(default=16, gt=0, description="How deep fields may be nested.")
    max_aliases: int = Field(default=100, ge=0, description="How many aliases an operation may have.")
    max_root_fields: int = Field(default=20, gt=0, description="How many fields an operation may have at its root.")
    max_directives: int = Field(default=50, ge=0, description="How many directives an operation may have.")
    max_list_items: int = Field(default=1_000, gt=0, description="How many values a list in an input may have.")
    max_cost: int = Field(default=50_000, gt=0, description="How many objects an answer may hold, as reckoned before.")
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
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", description="How it is logged: for people or programs; `auto`: for people on a terminal."
    )
