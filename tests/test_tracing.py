"""Spans as a collector receives them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from runstate.errors import ConfigurationError
from runstate.graphql.transport.observability import redacted
from runstate.tracing import exporters, tracing_of
from tests.serving import Serve

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
def kind() -> str:
    return "sqlite"


class Collector:
    """Receives spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.received: list[ExportTraceServiceRequest] = []
        self.url = ""

    @property
    def spans(self) -> list[Span]:
        """All received spans."""
        return [
            span
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def services(self) -> set[str]:
        """Names of the services that sent spans."""
        return {
            attribute.value.string_value
            for request in self.received
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        while head := await _head(reader):
            body = await reader.readexactly(int(head["content-length"]))
            self.received.append(ExportTraceServiceRequest.FromString(body))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def _head(reader: asyncio.StreamReader) -> dict[str, str]:
    lines = (await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"").decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            await collector.take(reader, writer)

    async with await asyncio.start_server(take, "127.0.0.1") as listening:
        collector.url = "http://127.0.0.1:{1}".format(*listening.sockets[0].getsockname())
        yield collector


def attributes(span: Span) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in span.attributes}


async def test_every_operation_is_a_span_in_the_trace_of_its_request(serve: Serve) -> None:
    async with collecting() as collector:
        server = await serve(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        async with httpx.AsyncClient(headers=HEADERS) as client:
            await client.post(server.url, json={"query": "query Mine { __typename }", "operationName": "Mine"})
            await client.post(server.url, json={"query": "{ nothing }"})
            reply = await client.post(server.url, json={"query": "no document"})
        assert await server.stop() == 0

    fine, wrong, none = collector.spans
    assert collector.services == {"runstate"}
    assert {(each.trace_id.hex(), each.parent_span_id.hex()) for each in collector.spans} == {(TRACE, PARENT)}
    assert reply.headers["x-request-id"] == TRACE
    assert (fine.name, fine.kind, fine.status.code) == ("query", Span.SPAN_KIND_SERVER, Status.STATUS_CODE_UNSET)
    assert attributes(fine) == {"graphql.operation.type": "query", "graphql.operation.name": "Mine"}
    assert (wrong.name, wrong.status.code) == ("query", Status.STATUS_CODE_ERROR)
    assert attributes(wrong)["error.type"] == "BAD_USER_INPUT"
    assert (none.name, attributes(none)["error.type"]) == ("GraphQL Operation", "GRAPHQL_PARSE_FAILED")


async def test_spans_contain_documents_if_the_setting_is_on(serve: Serve) -> None:
    async with collecting() as collector:
        server = await serve(
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_SERVICE_NAME="orchestration",
            RUNSTATE_TRACE_DOCUMENTS="true",
        )
        async with httpx.AsyncClient() as client:
            await client.post(server.url, json={"query": '{ flow(by: { name: "secret" }) { id } }'})
        assert await server.stop() == 0

    (span,) = collector.spans
    assert collector.services == {"orchestration"}
    assert "flow(by: { name:" in attributes(span)["graphql.document"]
    assert "secret" not in attributes(span)["graphql.document"]


def test_a_document_is_redacted() -> None:
    said = '{ flowRuns(first: 7, where: {name: {in: ["a", "b"]}, runCount: {gt: 1.5}}) { nodes { id } } }'
    blank = redacted(said) or ""

    assert not any(character.isdigit() for character in blank)
    assert '"a"' not in blank
    assert "where" in blank
    assert redacted("{") is None


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "TRUE"}, []),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_http"]),
    ],
    ids=["nothing", "endpoint", "traces", "grpc", "none", "disabled", "several"],
)
def test_the_environment_configures_the_exporter(environment: dict[str, str], names: list[str]) -> None:
    assert exporters(environment) == names


def test_an_unknown_exporter_is_reported() -> None:
    with pytest.raises(ConfigurationError, match="exporter `zipkin` is not installed"):
        tracing_of({"OTEL_TRACES_EXPORTER": "zipkin"})


async def test_without_spans_no_library_is_loaded() -> None:
    loaded = "import sys, runstate.__main__; print([name for name in sys.modules if 'opentelemetry' in name])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", loaded, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()

    assert said == b"[]\n"
