"""The process that renders templates."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import orjson
from jinja2 import Undefined

from runstate.core.validation.serving import serve
from runstate.documents.templates import Resource, environment, expression

LONGEST_TEXT: Final = 2**16
"""Maximum size of a rendered text, in characters."""
LONGEST_MESSAGE: Final = 500
TIMES: Final = frozenset(
    {"occurred", "received", "fired", "start_time", "end_time", "expected_start_time", "timestamp"}
)


class TooLong(ValueError):
    """The text is too long."""


def answer(request: bytes) -> bytes:
    """Return rendered values as JSON, or why they cannot be rendered."""
    given = orjson.loads(request)
    try:
        names = {name: named(name, value) for name, value in given["names"].items()}
        return orjson.dumps({"rendered": rendered(given["values"], names)}, default=str, option=orjson.OPT_NON_STR_KEYS)
    except Exception as error:  # noqa: BLE001 templates of clients raise anything
        return orjson.dumps({"error": f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE]})


def rendered(value: Any, names: Mapping[str, Any]) -> Any:
    """Render the templates inside a value. With `typed` names, a text that is one expression keeps the type."""
    if isinstance(value, dict):
        return {key: rendered(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [rendered(each, names) for each in value]
    if not isinstance(value, str) or "{" not in value:
        return value
    source = expression(value) if names["typed"] else None
    return text(value, names) if source is None else plain(evaluated(source, names))


def evaluated(source: str, names: Mapping[str, Any]) -> Any:
    """Return the value of an expression."""
    return environment().compile_expression(source, undefined_to_none=True)(**names)


def text(template: str, names: Mapping[str, Any]) -> str:
    """Render a template to a text."""
    return "".join(pieces(environment().from_string(template).generate(**names)))


def pieces(generated: Iterator[str]) -> Iterator[str]:
    """Yield pieces of a text. Raise TooLong if it becomes too long."""
    length = 0
    # Measured piece by piece: a loop in a template could fill the memory before the text is complete.
    for piece in generated:
        length += len(piece)
        if length > LONGEST_TEXT:
            raise TooLong(f"the rendered text has more than {LONGEST_TEXT} characters")
        yield piece


def plain(value: Any) -> Any:
    """Return a value of an expression as JSON has it."""
    if isinstance(value, Undefined):
        return None
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | Iterator | range):
        return [plain(each) for each in value]
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise TooLong(f"the value has more than {LONGEST_TEXT} characters")
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def named(name: str, value: Any) -> Any:
    """Return the value of a name, with times and resources in place of texts and dicts."""
    if name in {"events", "firings"}:
        return [named(name[:-1], each) for each in value]
    # Clients choose the keys of these, which may be equal to the names of times.
    if not isinstance(value, dict) or name in {"labels", "variables"}:
        return value
    found: dict[str, Any] = {
        key: datetime.fromisoformat(each) if key in TIMES and each else each for key, each in value.items()
    }
    if name == "event":
        found["resource"] = Resource(found["resource"])
        found["related"] = list(map(Resource, found["related"]))
    if isinstance(found.get("state"), dict):
        found["state"] = named("state", found["state"])
    return found


if __name__ == "__main__":
    environment()
    serve(answer)
