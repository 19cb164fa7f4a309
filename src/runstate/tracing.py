"""Spans for OpenTelemetry, where the environment asks for them; nothing of it is loaded where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from runstate import __version__
from runstate.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
UNNAMED: Final = "GraphQL Operation"
"""What the span of an operation is called whose type is not known."""


class Tracing:
    """Makes spans of operations, and sends them to where the environment says."""

    def __init__(self, provider: TracerProvider, *, documents: bool = False) -> None:
        self.trace = import_module("opentelemetry.trace")  # deferred: seldom wanted, and takes long to load
        self.propagate = import_module("opentelemetry.propagate")
        self.provider = provider
        self.documents = documents
        """Whether spans have the documents of their operations."""
        self.tracer = provider.get_tracer("runstate", __version__)

    def start(self, headers: Mapping[str, str]) -> Span:
        """A span that starts now, in the trace that a request names."""
        span: Span = self.tracer.start_span(
            UNNAMED, context=self.propagate.extract(headers), kind=self.trace.SpanKind.SERVER
        )
        return span

    def end(self, span: Span, kind: str, name: str | None, document: str | None, code: str | None) -> None:
        """A span ends, with what is known of its operation; with a code, it went wrong."""
        if kind != "unknown":
            span.update_name(kind)
        told = {
            "graphql.operation.type": kind,
            "graphql.operation.name": name,
            "graphql.document": document,
            "error.type": code,
        }
        span.set_attributes({key: value for key, value in told.items() if value is not None})
        if code is not None:
            span.set_status(self.trace.Status(self.trace.StatusCode.ERROR, code))
        span.end()

    def close(self) -> None:
        """Send what waits; it takes a while when nobody is there to take it."""
        self.provider.shutdown()


def tracing_of(environment: Mapping[str, str], *, documents: bool = False) -> Tracing | None:
    """What the variables `OTEL_…` ask for; Misconfigured: it is not installed."""
    names = exporters(environment)
    if not names:
        return None
    try:
        sdk, export, resources = (
            import_module(f"opentelemetry.sdk.{name}") for name in ("trace", "trace.export", "resources")
        )
    except ImportError:
        raise ConfigurationError("Tracing is asked for: install runstate[otel].") from None
    known = {} if named(environment) else {"service.name": "runstate", "service.version": __version__}
    provider = sdk.TracerProvider(resource=resources.Resource.create(known), shutdown_on_exit=False)
    for name in names:
        provider.add_span_processor(export.BatchSpanProcessor(exporter(name)()))
    return Tracing(provider, documents=documents)


def exporters(environment: Mapping[str, str]) -> list[str]:
    """The names of what spans are sent with, as the SDK finds them; none: no spans are wanted."""
    given = any(environment.get(name) for name in ENDPOINTS)
    wanted = environment.get("OTEL_TRACES_EXPORTER") or ("otlp" if given else "none")
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), "http/protobuf")
    otlp = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    names = [name.strip() for name in wanted.split(",")]
    return [otlp if name == "otlp" else name for name in names if name not in {"none", ""}]


def named(environment: Mapping[str, str]) -> bool:
    """Whether the environment says what the service is called."""
    return bool(environment.get("OTEL_SERVICE_NAME")) or "service.name=" in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )


def exporter(name: str) -> Any:
    """What sends spans, by its name; Misconfigured: there is none."""
    found = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        raise ConfigurationError(f"OTEL_TRACES_EXPORTER: there is no `{name}`; runstate[otel] brings otlp.")
    return next(iter(found)).load()
