"""The index of triggers: from the name of an event to the triggers that can react to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from runstate.core.automations.compiled import Compiled, EventLeaf
from runstate.documents.events import PREFIX

LOOP_STOPPED: Final = f"{PREFIX}automation.loop-stopped"
"""Event that automations kept firing each other. No trigger evaluates it: it could go on with the loop."""
REMEMBERED: Final = 10_000
"""Maximum number of names with a remembered answer; clients choose names."""

Found = tuple[tuple[Compiled, tuple[EventLeaf, ...]], ...]


class Index:
    """The enabled automations, by the names of events that can have an effect on them. It is never changed."""

    def __init__(self, automations: Iterable[Compiled] = ()) -> None:
        self.automations: Mapping[UUID, Compiled] = {
            each.id: each for each in sorted(automations, key=lambda each: each.id)
        }
        self._by_name: dict[str, Found] = {}

    def named(self, name: str) -> Found:
        """Return the automations with event triggers whose patterns match a name, in a fixed order."""
        if (found := self._by_name.get(name)) is None:
            if len(self._by_name) >= REMEMBERED:
                self._by_name.clear()
            found = self._by_name[name] = tuple(self._search(name))
        return found

    def with_(self, automation: Compiled) -> Index:
        """Return the index with an automation that is new, or replaces one with its id."""
        return Index({**self.automations, automation.id: automation}.values())

    def without(self, id: UUID) -> Index:
        """Return the index without an automation."""
        return Index(each for each in self.automations.values() if each.id != id)

    def _search(self, name: str) -> Iterable[tuple[Compiled, tuple[EventLeaf, ...]]]:
        for automation in self.automations.values() if name != LOOP_STOPPED else ():
            if leaves := tuple(leaf for leaf in automation.leaves if leaf.names(name)):
                yield automation, leaves
