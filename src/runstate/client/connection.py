"""Operations over HTTP, repeated while the server is away."""

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx
import orjson

from runstate.client.errors import INTERNAL, RefusedError, UnreachableError
from runstate.client.sockets import authorization, refusal, socket_address

NOTHING_DONE: Final = {"OVERLOADED", "UNAVAILABLE", "RESTARTING"}
"""Codes of errors after which nothing was written."""
AGAIN: Final = NOTHING_DONE | {"TIMEOUT", INTERNAL}
"""Codes of errors after which an operation that may be repeated is repeated."""
BUSY: Final = {408, 429, 500, 502, 503, 504}
"""HTTP statuses of a server that is away."""
UNWELCOME: Final = {401, 403}
UNAVAILABLE: Final = 503
KEY_NEEDED: Final = "The server requires a valid key: set --key or RUNSTATE_API_KEY, or pass key=."
SHORTEST_SECONDS: Final = 0.1
LONGEST_SECONDS: Final = 5.0
"""Bounds of the pause before a repetition; it doubles each time."""
FIRST_SECONDS: Final = 30.0
"""Longest time for which a server is awaited that has never answered."""
HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/graphql-response+json, application/json"}
UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Errors before a request was sent."""


class AwayError(Exception):
    """The server is away, or too busy."""

    def __init__(self, message: str, *, after: float = 0, done_nothing: bool = True) -> None:
        super().__init__(message)
        self.after, self.done_nothing = after, done_nothing


def http_address(url: str) -> str:
    """Return the URL of the GraphQL API for a server URL, with or without a path."""
    scheme, *rest = urlsplit(socket_address(url))
    return urlunsplit(({"ws": "http", "wss": "https"}[scheme], *rest))


class Connection:
    """Executes operations. Belongs to one event loop."""

    def __init__(self, url: str, key: str | None, patience: float) -> None:
        self.address, self.key, self.patience = http_address(url), key, patience
        headers = HEADERS | ({"Authorization": authorization(key)} if key else {})
        self.http = httpx.AsyncClient(headers=headers, timeout=60)
        self.has_answered = False

    async def execute(
        self, document: str, variables: Mapping[str, Any] | None = None, *, repeat: bool = True
    ) -> dict[str, Any]:
        """Execute an operation and return its data.

        Without *repeat*, it is repeated only if nothing was done. Raise RefusedError if the server rejects it,
        UnreachableError if no server answers in time.
        """
        return await self.send(orjson.dumps({"query": document, "variables": variables or {}}), repeat=repeat)

    async def send(self, body: bytes, *, repeat: bool = True, patience: float | None = None) -> dict[str, Any]:
        """Send a request body and return the data of the answer."""
        # A server that has never answered may be a wrong address: then the program should say so soon.
        longest = self.patience if patience is None else patience
        pause, until = (
            SHORTEST_SECONDS,
            time.monotonic() + (longest if self.has_answered else min(longest, FIRST_SECONDS)),
        )
        while True:
            try:
                data = await self._try(body)
            except AwayError as away:
                left = until - time.monotonic()
                # A request that may have been executed is repeated only if the caller says that this is harmless.
                if left <= 0 or not (repeat or away.done_nothing):
                    raise UnreachableError(self._explained(away, repeat=repeat)) from away
                # Random, so that the clients of a restarted server do not return at the same moment.
                wait = max(pause * random.uniform(0.5, 1), away.after)  # noqa: S311 - not used for secrets
                await asyncio.sleep(min(wait, left))
                pause = min(2 * pause, LONGEST_SECONDS)
            else:
                self.has_answered = True
                return data

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def _try(self, body: bytes) -> dict[str, Any]:
        try:
            reply = await self.http.post(self.address, content=body)
        except httpx.TransportError as error:
            said = str(error) or type(error).__name__
            raise AwayError(said, done_nothing=isinstance(error, UNSENT)) from error
        return _data_of(reply)

    def _explained(self, away: AwayError, *, repeat: bool) -> str:
        if not (repeat or away.done_nothing):
            return f"The connection to {self.address} was lost ({away}): the operation may or may not have been done."
        return f"No server answers at {self.address} ({away}): start it with `runstate serve`, or set RUNSTATE_URL."


def _data_of(reply: httpx.Response) -> dict[str, Any]:
    answer = _json_of(reply)
    errors = answer.get("errors")
    if errors:
        code = (errors[0].get("extensions") or {}).get("code", "")
        # `data` besides an internal error has the answers that could be given.
        if code in AGAIN and not (code == INTERNAL and answer.get("data")):
            raise AwayError(errors[0]["message"], after=_seconds(reply), done_nothing=code in NOTHING_DONE)
        raise RefusedError(KEY_NEEDED if code == "UNAUTHENTICATED" else errors[0]["message"])
    if "data" not in answer:
        raise RefusedError(refusal(reply.status_code, reply.content))
    data: dict[str, Any] = answer["data"]
    return data


def _json_of(reply: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of an answer. Raise AwayError or RefusedError if a proxy answered without one."""
    try:
        answer = orjson.loads(reply.content)
    except orjson.JSONDecodeError:
        answer = None
    if isinstance(answer, dict) and ("data" in answer or "errors" in answer):
        return answer
    if reply.status_code in BUSY:
        # A proxy that answers 502 or 504 may have passed the request on; 503 means that it had no server to pass it to.
        done_nothing = reply.status_code == UNAVAILABLE
        raise AwayError(f"HTTP status {reply.status_code}", after=_seconds(reply), done_nothing=done_nothing)
    if reply.status_code in UNWELCOME:
        raise RefusedError(KEY_NEEDED)
    raise RefusedError(refusal(reply.status_code, reply.content))


def _seconds(reply: httpx.Response) -> float:
    after = reply.headers.get("Retry-After", "")
    return float(after) if after.isdecimal() else 0.0
