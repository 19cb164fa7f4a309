"""The process that validates against JSON schemas."""

import functools
from typing import Any, Final

import jsonschema_rs
import orjson

from runstate.core.validation.serving import serve

PATTERN_BYTES: Final = 2**20
"""Memory that one compiled regular expression may use."""
LONGEST_MESSAGE: Final = 500

PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES, dfa_size_limit=PATTERN_BYTES)
"""The linear-time regular expression engine, which has no lookaround and no backreferences."""


@functools.lru_cache(32)
def validator(schema: bytes) -> jsonschema_rs.Draft202012Validator:
    """Return a validator; raise ValueError if the schema is invalid or refers to anything outside itself."""
    # `mask` keeps the values of clients, which can be long, out of messages.
    return jsonschema_rs.Draft202012Validator(
        orjson.loads(schema), pattern_options=PATTERNS, offline=True, validate_formats=False, mask="the value"
    )


def error_of(schema: bytes, value: bytes) -> dict[str, Any] | None:
    """Return the error of the schema, or of the value if there is one; None if both are valid."""
    of = "schema"
    try:
        known = validator(schema)
        of = "value"
        if value:
            known.validate(orjson.loads(value))
    except ValueError as error:
        # Messages can repeat parts of a schema, which can be long.
        message = str(getattr(error, "message", error))[:LONGEST_MESSAGE]
        return {"of": of, "message": message, "path": [str(part) for part in getattr(error, "instance_path", ())]}
    return None


def answer(request: bytes) -> bytes:
    """Return the error as JSON, or null, for a schema and a value with a tab between them."""
    schema, _, value = request.partition(b"\t")
    return orjson.dumps(error_of(schema, value))


if __name__ == "__main__":
    serve(answer)
