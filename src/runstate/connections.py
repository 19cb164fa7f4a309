"""Limits on connections: their number, the time in which a request has to arrive, and the memory for its parts.

Uvicorn has no such limits: it parses and queues all requests that a client sends, however many.
"""

import asyncio
import errno
import os
import resource
from collections import Counter
from dataclasses import asdict, dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Final

import structlog

from runstate.settings import Settings

HEAD_BYTES: Final = 65_536
"""Maximum size of the head of a request, its request line and header fields, in bytes."""
HEAD_FIELDS: Final = 100
"""Maximum number of header fields of a request."""
PIPELINED: Final = 32
"""Maximum number of requests of a connection that wait for an answer."""
IDLE_SECONDS: Final = 75.0
"""Seconds after which an idle connection is closed: longer than clients and proxies keep theirs, to close last."""
UNREAD_SECONDS: Final = 30.0
"""Seconds after which a connection is closed if its client reads nothing of an answer."""
LINGER_SECONDS: Final = 2.0
"""Seconds for which the rest of a refused request is read: closing earlier can reset the connection before the client
reads the answer."""
LEAST: Final = 16
"""Number of connections that are always allowed, even if the process may open few files."""
OTHER_FILES: Final = 100
"""Number of files that the process opens besides its connections."""
REPORT_SECONDS: Final = 10.0
"""Seconds between two log lines about refused connections."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of all connections of a process."""

    connections: int = 10_000
    connections_per_address: int = 1_000
    buffered_bytes: int = 2**25
    """Maximum size of the incomplete requests of all connections together, in bytes."""
    head_seconds: float = 15.0
    body_seconds: float = 30.0
    unread_stream_seconds: float = 120.0
    """Seconds after which a stream is closed if its client reads nothing. Subscriptions that are behind end earlier."""


def limits_of(settings: Settings) -> ConnectionLimits:
    """Return the limits from the settings, lowered to the number of files that the process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The soft limit is often lower than the number of connections that the settings allow.
    if hard != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    files = max(soft - OTHER_FILES - settings.database_connections, LEAST)
    return ConnectionLimits(
        connections=settings.max_connections
        if soft == resource.RLIM_INFINITY
        else min(settings.max_connections, files),
        connections_per_address=settings.max_connections_per_address,
        buffered_bytes=settings.max_buffered_bytes,
        head_seconds=settings.request_head_timeout_seconds,
        body_seconds=settings.request_body_timeout_seconds,
        # Longer than the timeout of subscriptions, so that a slow subscriber first receives SLOW_CONSUMER.
        unread_stream_seconds=settings.slow_subscriber_timeout_seconds + 60,
    )


class Connections:
    """Counts of the connections of a process, and the periodic check of their timeouts."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.now = 0.0
        """Time of the last tick, in seconds of the loop's clock."""
        self.count = 0
        self.by_client: Counter[str] = Counter()
        self.buffered = 0
        """Bytes of incomplete requests."""
        self.refused = 0
        """Connections refused since the last log line about them."""
        # The first refusal is logged at once.
        self.reported = self.reported_files = -REPORT_SECONDS

    def enter(self, client: str) -> bool:
        """Count a new connection; return whether it is allowed."""
        # Refused connections count too, because `leave` is called for every connection.
        self.count += 1
        self.by_client[client] += 1
        is_allowed = (
            self.count <= self.limits.connections and self.by_client[client] <= self.limits.connections_per_address
        )
        if not is_allowed:
            self.refused += 1
            self._report()
        return is_allowed

    def leave(self, client: str) -> None:
        """Remove a closed connection from the counts."""
        self.count -= 1
        self.by_client[client] -= 1
        # Otherwise the counter would grow with every address ever seen.
        if not self.by_client[client]:
            del self.by_client[client]

    def buffer(self, change: int) -> bool:
        """Add to the bytes of incomplete requests; return whether all of them together are within the limit."""
        self.buffered += change
        return self.buffered <= self.limits.buffered_bytes

    def sweep(self, now: float, protocols: set[Any]) -> None:
        """Close connections that have timed out."""
        for protocol in list(protocols):
            protocol.sweep(now)
        if self.refused:
            self._report()
        # The loop drops connections for which there is no file, and tells nobody.
        if now - self.reported_files >= REPORT_SECONDS and not has_files():
            allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            log.error("file_descriptors_exhausted", connections=self.count, allowed=allowed)
            self.reported_files = now

    def _report(self) -> None:
        """Log the number of refused connections, at most once in REPORT_SECONDS."""
        if self.now - self.reported >= REPORT_SECONDS:
            log.warning("connections_refused", refused=self.refused, open=self.count, limits=asdict(self.limits))
            self.refused, self.reported = 0, self.now


def has_files() -> bool:
    """Return whether the process can open another file."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in {errno.EMFILE, errno.ENFILE}
    return True


def client_of(transport: asyncio.BaseTransport) -> str:
    """Return the client that a connection counts for: an IPv4 address, or the /64 network of an IPv6 address."""
    peer = transport.get_extra_info("peername")
    host = str(peer[0]) if isinstance(peer, tuple) else ""
    try:
        # Link-local addresses of IPv6 have a zone: fe80::1%eth0.
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    # A client can use all addresses of its /64, so they count as one.
    is_wide = address.version == 6 and address.ipv4_mapped is None  # noqa: PLR2004
    return str(ip_network((address, 64), strict=False)) if is_wide else host


class Unread:
    """Detector of a client that reads nothing of what it is sent."""

    def __init__(self, now: float) -> None:
        self.size = 0
        self.since = now

    def is_over(self, transport: asyncio.WriteTransport, now: float, seconds: float) -> bool:
        """Return whether data have waited for so many seconds and the client has read none of them."""
        size = transport.get_write_buffer_size()
        # A smaller buffer means that the client has read something.
        if not size or size < self.size:
            self.since = now
        self.size = size
        return now - self.since > seconds
