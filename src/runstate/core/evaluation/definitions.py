"""Definitions of automations, as the events about them carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import UUID

from pydantic import TypeAdapter

from runstate.core.automations.compiled import Compiled
from runstate.documents.actions import AutomationAction, TriggerState
from runstate.documents.events import PREFIX
from runstate.documents.triggers import Trigger
from runstate.rows import Automation

TRIGGER: Final = TypeAdapter[Any](Trigger)
ACTIONS: Final = TypeAdapter[Any](list[AutomationAction])
LISTS: Final = ("actions", "actions_on_trigger", "actions_on_resolve")
CHANGES: Final = frozenset(f"{PREFIX}automation.{what}" for what in ("created", "updated", "deleted"))
"""Names of the events that change automations."""
DEFINITION: Final = "definition"
"""Key of the definition in the payload of these events."""


def definition_of(automation: Automation) -> dict[str, Any]:
    """Return what an evaluator needs to know of an automation, as JSON."""
    lists = {name: ACTIONS.dump_python(getattr(automation, name), mode="json") for name in LISTS}
    trigger = TRIGGER.dump_python(automation.trigger, mode="json")
    return {"name": automation.name, "enabled": automation.enabled, "trigger": trigger, **lists}


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An automation at a place in the log."""

    definition: Mapping[str, Any]
    compiled: Compiled

    @classmethod
    def of(cls, id: UUID, definition: Mapping[str, Any]) -> Self:
        """Return the automation with a definition."""
        return cls(definition, Compiled(id, TRIGGER.validate_python(definition["trigger"])))

    @property
    def enabled(self) -> bool:
        """Whether it counts events."""
        return bool(self.definition["enabled"])

    def actions(self, state: TriggerState) -> list[tuple[Any, bool]]:
        """Return the actions of a firing, each with whether the state event is its event."""
        further = self.definition["actions_on_trigger" if state is TriggerState.TRIGGERED else "actions_on_resolve"]
        first = self.definition["actions"] if state is TriggerState.TRIGGERED else []
        return [(each, False) for each in first] + [(each, True) for each in further]
