"""The validating process: it reads two lines, a schema and a value, and writes one line with the error or null.

A request that uses too much processor time or memory ends the process. It imports nothing of runstate, so that it
starts fast.
"""

import functools
import resource
import signal
import sys
from typing import Any, Final

import jsonschema_rs
import orjson

CPU_SECONDS: Final = 0.5
"""Processor time that one request may use."""
MEMORY_BYTES: Final = 2**29
"""Address space that the process may use."""
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


def serve() -> None:
    """Answer requests until the end of the input."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a process that is killed must not write a core dump
    for schema in sys.stdin.buffer:
        value = sys.stdin.buffer.readline()
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # the default action of its signal ends the process
        answer = orjson.dumps(error_of(schema.strip(), value.strip()))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
