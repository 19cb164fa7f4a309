"""Requests to webhooks and notification services, bounded in time and size, and to permitted addresses only."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import httpcore
import orjson

from runstate.core.actions.addresses import Addresses, ForbiddenAddress
from runstate.core.validation.process import BoundedProcess

TIMEOUT_SECONDS: Final = 10.0
LONGEST_ANSWER: Final = 1000
"""Characters of an answer that are kept."""
# A character of UTF-8 has at most four bytes.
READ_BYTES: Final = 4 * LONGEST_ANSWER
SHOWN_HEADERS: Final = frozenset({"content-type", "date", "retry-after", "server", "x-request-id"})
# Request Timeout, Too Early, Too Many Requests.
TEMPORARY: Final = frozenset({408, 425, 429})
FIRST_ERROR: Final = 400
FIRST_REDIRECT: Final = 300
FIRST_SERVER_ERROR: Final = 500


class SendingFailed(Exception):
    """A request failed for good."""


class SendAgain(Exception):
    """A request failed, and may succeed later."""

    def __init__(self, message: str, after: float = 0) -> None:
        super().__init__(message)
        self.after = after
        """Seconds that the receiver asks to wait."""


class Answer(NamedTuple):
    """The answer of a receiver."""

    status: int
    body: str
    headers: dict[str, str]


class Guarded(httpcore.AsyncNetworkBackend):
    """Connections to permitted addresses. The address that is checked is the one that is connected to."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses = addresses
        self.network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 the signature of the library
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a host. Raise ForbiddenAddress if none of its addresses is permitted."""
        # Resolved here once: a name that is resolved again for the connection could have another address by then.
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        resolved = list(dict.fromkeys(str(address[0]) for *_, address in found))
        permitted = [each for each in resolved if self.addresses.permits(each)]
        if not permitted:
            self.addresses.check(resolved[0])
        return await self.network.connect_tcp(permitted[0], port, timeout, local_address, socket_options)

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Raise ForbiddenAddress."""
        raise ForbiddenAddress("Sockets of this machine are not permitted.")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Notifier(BoundedProcess):
    """Sends notifications in a process whose connections are checked."""

    module = "runstate.core.actions.notifier"


class Sender:
    """Sends requests of actions."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self.networks = list(networks)
        self.guarded = Guarded(Addresses(networks))
        self.notifier = Notifier()

    async def close(self) -> None:
        """End the process that sends notifications."""
        await self.notifier.close()

    async def call(self, method: str, url: str, headers: Mapping[str, str], body: str) -> Answer:
        """Send a request and return the answer. Raise SendingFailed or SendAgain; redirects are not followed."""
        if not url.lower().startswith(("http://", "https://")):
            raise SendingFailed("The URL of a webhook must begin with http:// or https://.")
        try:
            # A pool of its own, so that no connection outlives a change of the setting or of the name.
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                httpcore.AsyncConnectionPool(network_backend=self.guarded) as pool,
            ):
                answer = await _answer(pool, method, url, headers, body)
        except ForbiddenAddress as error:
            raise SendingFailed(str(error)) from None
        except (
            TimeoutError,
            OSError,
            httpcore.NetworkError,
            httpcore.TimeoutException,
            httpcore.ProtocolError,
        ) as error:
            raise SendAgain(f"The request failed: {type(error).__name__} {error}".strip()) from None
        except (httpcore.UnsupportedProtocol, ValueError, TypeError) as error:
            raise SendingFailed(f"The request is invalid: {error}") from None
        return _checked(answer)

    async def notify(self, urls: Sequence[str], subject: str, body: str) -> None:
        """Send a text to services, given as URLs of Apprise. Raise SendingFailed or SendAgain."""
        request = orjson.dumps({"urls": list(urls), "title": subject, "body": body, "networks": self.networks})
        written = await self.notifier.ask(request)
        if not written:
            raise SendAgain("The notification took too much time or memory.")
        answer = orjson.loads(written)
        if answer["status"] == "sent":
            return
        raise (SendAgain if answer["status"] == "again" else SendingFailed)(answer["reason"])


async def _answer(
    pool: httpcore.AsyncConnectionPool, method: str, url: str, headers: Mapping[str, str], body: str
) -> Answer:
    sent = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
    async with pool.stream(method, url, headers=sent, content=body.encode()) as response:
        read = b""
        async for chunk in response.aiter_stream():
            read += chunk
            # The rest is not read: a receiver could send without end.
            if len(read) >= READ_BYTES:
                break
        # The last character can be cut in the middle, and PostgreSQL stores no NUL.
        text = read[:READ_BYTES].decode(errors="replace").replace("\0", "")[:LONGEST_ANSWER]
        received = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        # Others may hold cookies or tokens, and events are read by many.
        shown = {name: value[:LONGEST_ANSWER] for name, value in received.items() if name in SHOWN_HEADERS}
        return Answer(response.status, text, shown)


def _checked(answer: Answer) -> Answer:
    if answer.status < FIRST_REDIRECT:
        return answer
    reason = f"The webhook answered {answer.status}: {answer.body}".rstrip(": ")
    if answer.status in TEMPORARY or answer.status >= FIRST_SERVER_ERROR:
        raise SendAgain(reason, _seconds(answer.headers.get("retry-after", "")))
    raise SendingFailed(reason if answer.status >= FIRST_ERROR else f"{reason} (redirects are not followed)")


def _seconds(retry_after: str) -> float:
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
