"""Rendering of templates in a process with limits on time and memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from runstate.core.automations.events import Event
from runstate.core.validation.process import BoundedProcess
from runstate.documents import exact_json

WORD: Final = re.compile(r"[A-Za-z_]\w*")


class TemplateFailed(Exception):
    """A template cannot be rendered."""


class Templates(BoundedProcess):
    """Renders templates in a sandbox."""

    module = "runstate.core.actions.worker"

    async def render(self, values: Any, names: Mapping[str, Any], *, typed: bool = False) -> Any:
        """Return values with their templates rendered. Raise TemplateFailed if one fails or takes too much.

        With `typed`, a text that is one expression becomes the value of the expression. Raise Overloaded if too many
        requests wait.
        """
        if not any("{" in text for text in texts_in(values)):
            return values
        request = exact_json.dumps({"values": values, "names": {**names, "typed": typed}})
        answer = await self.ask(request)
        found = exact_json.loads(answer) if answer else {"error": "Rendering takes too much time or memory."}
        if "error" in found:
            raise TemplateFailed(found["error"])
        return found["rendered"]


def texts_in(values: Any) -> Iterator[str]:
    """Yield the texts inside of a JSON value."""
    if isinstance(values, str):
        yield values
    for each in values.values() if isinstance(values, dict) else values if isinstance(values, list) else ():
        yield from texts_in(each)


def words_in(values: Any) -> set[str]:
    """Return the words in templates, among which are all names that they use; empty without templates."""
    return {word for text in texts_in(values) if "{" in text for word in WORD.findall(text)}


def event_names(event: Event | None) -> dict[str, Any] | None:
    """Return an event as templates see it."""
    if event is None:
        return None
    return {
        "id": str(event.id),
        "name": event.name,
        "occurred": event.occurred.isoformat(),
        "received": event.received.isoformat(),
        "follows": str(event.follows) if event.follows else None,
        "resource": dict(event.resource),
        "related": list(map(dict, event.related)),
        "payload": event.payload,
    }
