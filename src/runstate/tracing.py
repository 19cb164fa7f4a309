"""Spans for OpenTelemetry. Its packages are imported only if the environment enables tracing."""

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
"""Name of the span of an operation whose type is unknown."""


class Tracing:
    """Spans of operations, sent to the exporters that the environment names."""

    def __init__(self, provider: TracerProvider, *, documents: bool = False) -> None:
        self.trace = import_module("opentelemetry.trace")  # imported here because it is slow to import and rarely used
        self.propagate = import_module("opentelemetry.propagate")
        self.provider = provider
        self.documents = documents
        """Whether spans contain the documents of their operations."""
        self.tracer = provider.get_tracer("runstate", __version__)

    def start(self, headers: Mapping[str, str]) -> Span:
        """Start a span in the trace that the headers of a request name."""
        span: Span = self.tracer.start_span(
            UNNAMED, context=self.propagate.extract(headers), kind=self.trace.SpanKind.SERVER
        )
        return span

    def end(self, span: Span, kind: str, name: str | None, document: str | None, code: str | None) -> None:
        """End a span with the attributes of its operation; an error code marks it as failed."""
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
        """Send the remaining spans. Blocks until a timeout if the collector is unreachable."""
        self.provider.shutdown()


def tracing_of(environment: Mapping[str, str], *, documents: bool = False) -> Tracing | None:
    """Return the tracing that the variables `OTEL_…` configure; None if they configure none.

    Raise ConfigurationError if OpenTelemetry or an exporter is not installed.
    """
    names = exporters(environment)
    if not names:
        return None
    try:
        sdk, export, resources = (
            import_module(f"opentelemetry.sdk.{name}") for name in ("trace", "trace.export", "resources")
        )
    except ImportError:
        raise ConfigurationError(
            "The OTEL_ variables enable tracing, but OpenTelemetry is missing: install runstate[otel]."
        ) from None
    # The environment takes precedence over these defaults.
    known = {} if named(environment) else {"service.name": "runstate", "service.version": __version__}
    # The lifespan shuts it down, so no exit handler is needed.
    provider = sdk.TracerProvider(resource=resources.Resource.create(known), shutdown_on_exit=False)
    for name in names:
        # A thread sends spans in batches, so that requests do not wait for the collector.
        provider.add_span_processor(export.BatchSpanProcessor(exporter(name)()))
    return Tracing(provider, documents=documents)


def exporters(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the exporters as entry points of the SDK; empty if tracing is off."""
    given = any(environment.get(name) for name in ENDPOINTS)
    wanted = environment.get("OTEL_TRACES_EXPORTER") or ("otlp" if given else "none")
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), "http/protobuf")
    otlp = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    names = [name.strip() for name in wanted.split(",")]
    return [otlp if name == "otlp" else name for name in names if name not in {"none", ""}]


def named(environment: Mapping[str, str]) -> bool:
    """Return whether the environment names the service."""
    return bool(environment.get("OTEL_SERVICE_NAME")) or "service.name=" in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )


def exporter(name: str) -> Any:
    """Return the class of an exporter by its name. Raise ConfigurationError if it is not installed."""
    found = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER: the exporter `{name}` is not installed; runstate[otel] includes otlp."
        )
    return next(iter(found)).load()
