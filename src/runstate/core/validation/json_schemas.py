"""Validation with bounded time and memory: a client's schema can take exponential time, so a process validates."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from runstate.documents import exact_json
from runstate.documents.states import Json
from runstate.errors import InvalidInput, Overloaded

WORKER: Final = Path(__file__).with_name("worker.py")
SCHEMA_BYTES: Final = 2**17
"""Maximum size of a schema."""
VALUE_BYTES: Final = 2**20
"""Maximum size of a value."""
WAITING: Final = 32
"""Maximum number of requests that wait for the process."""
PATIENCE_SECONDS: Final = 10.0
"""Timeout of an answer. The process is killed after it, even if it used little processor time."""

TOO_MUCH: Final = {"of": "schema", "message": "Validation takes too much time or memory.", "path": []}


class JsonSchemas:
    """A validator of JSON schemas (draft 2020-12), and of values against them.

    Its process is started on first use. Patterns take linear time; lookaround and backreferences are refused.
    References to anything outside a schema are refused, too.
    """

    def __init__(self) -> None:
        self.process: Process | None = None
        # The process answers one request after another.
        self.turn = asyncio.Lock()
        self.waiting = 0

    async def check(self, schema: Json, path: tuple[str, ...]) -> None:
        """Raise InvalidInput if the schema is invalid; `path` is where the input has the schema."""
        if error := await self._request(_line(schema, SCHEMA_BYTES, path), b""):
            raise InvalidInput(f"The JSON schema is invalid: {error['message']}", (*path, *error["path"]))

    async def validate(self, value: Json, schema: Json, path: tuple[str, ...]) -> None:
        """Raise InvalidInput if the value does not conform to the schema; `path` is where the input has the value."""
        error = await self._request(_line(schema, SCHEMA_BYTES, path), _line(value, VALUE_BYTES, path))
        if error and error["of"] == "value":
            raise InvalidInput(
                f"The value does not conform to its JSON schema: {error['message']}", (*path, *error["path"])
            )
        if error:
            raise InvalidInput(f"The JSON schema of the value is invalid: {error['message']}", path)

    async def close(self) -> None:
        """End the process."""
        # Cleared before the wait, so that the next caller starts another process.
        process, self.process = self.process, None
        if process:
            # The process may have ended already: it ends itself when a request uses too much.
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _request(self, schema: bytes, value: bytes) -> Any:
        """Return the error as a dict with `of`, `message` and `path`, or None. Raise Overloaded if too many wait."""
        if self.waiting >= WAITING:
            raise Overloaded("Too many values are waiting for validation; try again.")
        self.waiting += 1
        try:
            async with self.turn:
                answer = await self._answer(schema + b"\n" + value + b"\n")
        finally:
            self.waiting -= 1
        return orjson.loads(answer) if answer else TOO_MUCH

    async def _running(self) -> Process:
        if self.process is None or self.process.returncode is not None:
            self.process = await _started()
        return self.process

    async def _answer(self, request: bytes) -> bytes:
        """Return the answer line of the process; empty if the process ended or was killed."""
        answer = b""
        try:
            process = await self._running()
            assert process.stdin and process.stdout  # noqa: PT018, S101 both are pipes
            async with asyncio.timeout(PATIENCE_SECONDS):
                process.stdin.write(request)
                await process.stdin.drain()
                answer = await process.stdout.readline()
        # The process is killed below, so that it cannot keep the next request waiting.
        except (TimeoutError, ConnectionError):
            answer = b""
        finally:
            if not answer:  # also if the caller was cancelled: the next caller would read its answer
                await self.close()
        return answer


async def _started() -> Process:
    """Start the process in its own session, so that signals of a terminal reach the server only."""
    # `-P` keeps the folder of the script out of the search path of modules.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", str(WORKER), stdin=PIPE, stdout=PIPE, start_new_session=True
    )


def _line(value: Json, limit: int, path: tuple[str, ...]) -> bytes:
    try:
        line = exact_json.dumps(value)
    except (TypeError, RecursionError) as error:  # nested too deeply
        raise InvalidInput(f"The JSON value cannot be validated: {error}.", path) from None
    if len(line) > limit:
        raise InvalidInput(f"The JSON value is too large: {len(line)} bytes, at most {limit} are allowed.", path)
    return line
