"""Validation of values against JSON schemas of clients, in a process with limits on time and memory."""

from typing import Any, Final

import orjson

from runstate.core.validation.process import BoundedProcess
from runstate.documents import exact_json
from runstate.documents.states import Json
from runstate.errors import InvalidInput

SCHEMA_BYTES: Final = 2**17
"""Maximum size of a schema."""
VALUE_BYTES: Final = 2**20
"""Maximum size of a value."""

TOO_MUCH: Final = {"of": "schema", "message": "Validation takes too much time or memory.", "path": []}


class JsonSchemas(BoundedProcess):
    """A validator of JSON schemas (draft 2020-12), and of values against them.

    Patterns take linear time; lookaround and backreferences are refused. References to anything outside a schema are
    refused, too.
    """

    module = "runstate.core.validation.worker"

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

    async def _request(self, schema: bytes, value: bytes) -> Any:
        """Return the error as a dict with `of`, `message` and `path`, or None. Raise Overloaded if too many wait."""
        answer = await self.ask(schema + b"\t" + value)
        return orjson.loads(answer) if answer else TOO_MUCH


def _line(value: Json, limit: int, path: tuple[str, ...]) -> bytes:
    try:
        line = exact_json.dumps(value)
    except (TypeError, RecursionError) as error:  # nested too deeply
        raise InvalidInput(f"The JSON value cannot be validated: {error}.", path) from None
    if len(line) > limit:
        raise InvalidInput(f"The JSON value is too large: {len(line)} bytes, at most {limit} are allowed.", path)
    return line
