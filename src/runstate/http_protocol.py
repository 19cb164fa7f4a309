"""Uvicorn's protocol for HTTP with limits on time and memory, for clients that send too much or read too little."""

import asyncio
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Final, cast
from uuid import uuid4

import httptools
import orjson
import structlog
from typing_extensions import override
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runstate.connections import (
    HEAD_BYTES,
    HEAD_FIELDS,
    IDLE_SECONDS,
    LINGER_SECONDS,
    PIPELINED,
    UNREAD_SECONDS,
    Connections,
    Unread,
    client_of,
)

HEAD_SLICE: Final = 512
"""Number of bytes that are parsed at a time between requests. Small, because a slice can contain many requests, and all
of them are queued."""
BODY_SLICE: Final = 16_384
"""Number of bytes of a body that are parsed at a time."""
SLOWEST: Final = 16_384
"""Number of bytes of a body that extend its timeout by a second."""
EMPTY: Final = memoryview(b"")
MESSAGES: Final = {
    HTTPStatus.BAD_REQUEST: "The request is not valid HTTP.",
    HTTPStatus.REQUEST_TIMEOUT: "The request did not arrive in time.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: (
        f"The head of a request may have at most {HEAD_BYTES} bytes and {HEAD_FIELDS} header fields."
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: "Too many connections or requests are open; retry later.",
}

log = structlog.get_logger(__name__)


class Phase(Enum):
    """Part of a request that is expected next."""

    HEAD = auto()
    BODY = auto()
    NOTHING = auto()
    """The request is complete."""
    END = auto()
    """The last answer was written; further bytes are discarded."""


class Flow(FlowControl):
    """Flow control that pauses parsing; the protocol pauses the transport when unparsed bytes accumulate."""

    def __init__(self, transport: asyncio.Transport, protocol: "HttpProtocol") -> None:
        super().__init__(transport)
        self.protocol = protocol

    @override
    def pause_reading(self) -> None:
        self.read_paused = True

    @override
    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self.protocol.proceed()


class ResponseTransport:
    """The transport of one response. It writes the head and the first part of the body by one system call.

    Uvicorn writes them one by one, which costs a fifth of a small request. The head waits for the body until the event
    loop goes on, so that a stream without an event still begins at once.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.transport = transport
        self.loop = loop
        self.head: bytes | None = None
        self.has_begun = False

    def write(self, data: bytes) -> None:
        """Write a part of the response, or hold it if it is the first."""
        if self.has_begun:
            head, self.head = self.head, None
            self.transport.write(head + data if head else data)
        else:
            self.has_begun, self.head = True, data
            self.loop.call_soon(self._flush)

    def close(self) -> None:
        """Close the connection after everything is written."""
        self._flush()
        self.transport.close()

    def is_closing(self) -> bool:
        """Return whether the connection is closed or will be."""
        return self.transport.is_closing()

    def _flush(self) -> None:
        head, self.head = self.head, None
        if head and not self.transport.is_closing():
            self.transport.write(head)


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 with limits: the next request is parsed when earlier ones are answered."""

    flow: Flow
    cycle: Any
    """The last parsed request with its answer; None before the first."""

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.guard: Connections = cast("Any", self.config).guard
        self.flow = Flow(transport, self)
        self.sender = client_of(transport)
        self.phase = Phase.HEAD
        self.since = self.guard.now
        """Start of the phase, by the loop's clock."""
        self.unread = Unread(self.guard.now)
        self.head_bytes = self.body_bytes = 0
        self.fault = HTTPStatus.BAD_REQUEST
        self.pending = EMPTY
        """Bytes that are not parsed yet."""
        self.is_paused = False
        # Refused here and not by the listener, so that the client reads why.
        if not self.guard.enter(self.sender):
            self.phase = Phase.END
            self.transport.write(response(HTTPStatus.SERVICE_UNAVAILABLE))
            self.transport.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.phase, self.pending = Phase.END, EMPTY
        self.guard.leave(self.sender)
        self._release()
        super().connection_lost(exc)

    @property
    def is_answering(self) -> bool:
        """Whether a request is waiting for its answer."""
        return self.cycle is not None and (bool(self.pipeline) or not self.cycle.response_complete)

    @override
    def data_received(self, data: bytes) -> None:
        if self.phase is not Phase.END:
            # A memoryview, because slices of it copy nothing.
            self.pending = memoryview(bytes(self.pending) + data if self.pending else data)
            self.proceed()

    def proceed(self) -> None:
        """Parse the received bytes until a request has to wait for earlier ones."""
        while self.pending and not self.flow.read_paused and self.phase is not Phase.END:
            size = BODY_SLICE if self.phase is Phase.BODY else HEAD_SLICE
            piece, self.pending = self.pending[:size], self.pending[size:]
            self._parse(piece)
        # While the transport is paused, TCP makes the client wait.
        self._pause(bool(self.pending) or self.flow.read_paused)

    def _pause(self, pause: bool) -> None:  # noqa: FBT001
        if pause is not self.is_paused and not self.transport.is_closing():
            self.is_paused = pause
            (self.transport.pause_reading if pause else self.transport.resume_reading)()

    def _parse(self, piece: memoryview) -> None:
        try:
            self.parser.feed_data(piece)
        # httptools raises this after the head of a request that asks for an upgrade.
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError:
            self.refuse(self.fault)
        else:
            if self.phase is Phase.HEAD:
                self.head_bytes += len(piece)
                if self.head_bytes > HEAD_BYTES:
                    self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _upgrade(self) -> None:
        if self._should_upgrade():
            self.phase, self.pending = Phase.END, EMPTY
            self.handle_websocket_upgrade()
        else:
            self._unsupported_upgrade_warning()

    @override
    def on_message_begin(self) -> None:
        # Small requests can be sent faster than they are answered.
        if len(self.pipeline) >= PIPELINED:
            self._fail(HTTPStatus.SERVICE_UNAVAILABLE)
        super().on_message_begin()
        self._enter(Phase.HEAD)
        self.head_bytes = 0

    @override
    def on_headers_complete(self) -> None:
        # Not counted one by one: the bytes of the head bound the fields that are held until here.
        if len(self.headers) > HEAD_FIELDS:
            self._fail(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        before = self.cycle
        super().on_headers_complete()
        # The application starts after this callback, so nothing was written yet. A WebSocket has no cycle.
        if self.cycle is not before:
            self.cycle.transport = ResponseTransport(self.transport, self.loop)
        self._enter(Phase.BODY)
        self.received = 0

    @override
    def on_body(self, body: bytes) -> None:
        self.received += len(body)
        # Uvicorn discards the body of a request that is already answered.
        if not self.cycle.response_complete:
            self.body_bytes += len(body)
            if not self.guard.buffer(len(body)):
                self._fail(HTTPStatus.SERVICE_UNAVAILABLE)
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._enter(Phase.NOTHING)

    @override
    def on_response_complete(self) -> None:
        # Replaces uvicorn's method, which would start a timer for each idle connection and resume reading earlier.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._release()
        self.since = self.guard.now
        self.flow.resume_reading()

    def _enter(self, phase: Phase) -> None:
        self.phase, self.since = phase, self.guard.now

    def _release(self) -> None:
        self.guard.buffer(-self.body_bytes)
        self.body_bytes = 0

    def _fail(self, fault: HTTPStatus) -> None:
        """Abort the parser from one of its callbacks; the exception makes it fail with this status."""
        self.fault = fault
        raise ValueError(fault.phrase)

    def refuse(self, status: HTTPStatus) -> None:
        """Answer with an error unless an answer is in progress, and discard everything that follows."""
        # An answer that has begun cannot be replaced by an error.
        is_answering = bool(self.pipeline) or (self.cycle is not None and self.cycle.response_started)
        if not is_answering or self.cycle.response_complete:
            self.transport.write(response(status))
        log.info("request_refused", status=status.value, message=MESSAGES[status])
        self._enter(Phase.END)
        self.pending = EMPTY
        self._hang_up()
        # Half-closes: the client can read the answer while the rest of its request is discarded.
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _hang_up(self) -> None:
        """Notify the application that the client has disconnected."""
        # Otherwise the application would wait for the rest of the request.
        for cycle in (*(each for each, _ in self.pipeline), *([self.cycle] if self.cycle else ())):
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        self._release()

    def sweep(self, now: float) -> None:
        """Close the connection if the client exceeds a timeout."""
        waited = now - self.since
        if self.phase is Phase.END or self.transport.is_closing() or self.flow.write_paused:
            self._sweep_output(now)
        elif self.phase is Phase.BODY:
            # The application is slow to read the body, not the client to send it.
            if self.flow.read_paused:
                self.since = now
            # A large body gets more time, a client that sends a byte now and then does not.
            elif waited > self.guard.limits.body_seconds + self.received / SLOWEST:
                self.refuse(HTTPStatus.REQUEST_TIMEOUT)
        # The time of the answer is not the client's.
        elif self.is_answering:
            self.since = now
        elif self.phase is Phase.HEAD and waited > self.guard.limits.head_seconds:
            self._late_head()
        elif waited > IDLE_SECONDS:
            self.transport.close()

    def _late_head(self) -> None:
        if self.head_bytes:
            self.refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()  # no request was started, so there is nothing to answer

    def _sweep_output(self, now: float) -> None:
        # Answers have a length; only streams are sent in chunks.
        is_stream = self.cycle is not None and self.cycle.chunked_encoding and not self.cycle.response_complete
        seconds = self.guard.limits.unread_stream_seconds if is_stream else UNREAD_SECONDS
        is_spent = self.phase is Phase.END and now - self.since > LINGER_SECONDS
        if is_spent or self.unread.is_over(self.transport, now, seconds):
            # `close` would wait until the client reads the rest of the answer.
            self.transport.abort()


def response(status: HTTPStatus) -> bytes:
    """Return the HTTP response with which a request is refused before it reaches the application."""
    extensions = {"code": "OVERLOADED" if status == HTTPStatus.SERVICE_UNAVAILABLE else "BAD_REQUEST"}
    known_as = str(uuid4())
    error = {"message": MESSAGES[status], "extensions": {**extensions, "requestId": known_as}}
    body = orjson.dumps({"errors": [error]})
    again = "retry-after: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\nx-request-id: {known_as}\r\n{again}\r\n"
    )
    return head.encode() + body
