"""Automations that would run a deployment because of the runs that they create."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final
from uuid import UUID

from runstate.core.automations.patterns import MAGIC, LabelsPattern, NamePatterns
from runstate.documents.actions import RunDeploymentAction
from runstate.documents.events import PREFIX
from runstate.documents.triggers import EventTrigger, Posture, inner_triggers

STARTING: Final = tuple(f"{PREFIX}flow-run.{name}" for name in ("Scheduled", "Pending", "Running"))
"""Events that each run of a deployment has, whatever becomes of it."""
ANY_RUN: Final = f"{PREFIX}flow-run."
RUN: Final = {"resource.id": f"{PREFIX}flow-run.00000000-0000-4000-8000-000000000000"}
"""Labels that every flow run has."""


def endless(trigger: Any, actions: Iterable[Any]) -> Iterator[int]:
    """Yield the places of actions that would make an automation with a trigger run without end."""
    reacting = [each for each in inner_triggers(trigger) if _reacts_to_starts(each)]
    for place, action in enumerate(actions):
        if isinstance(action, RunDeploymentAction) and any(_feeds(each, action.deployment_id) for each in reacting):
            yield place


def _reacts_to_starts(trigger: Any) -> bool:
    if not isinstance(trigger, EventTrigger) or trigger.posture is not Posture.REACTIVE:
        return False
    names = NamePatterns(trigger.expect)
    return not trigger.expect or any(map(names.match, STARTING))


def _feeds(trigger: EventTrigger, deployment_id: UUID | None) -> bool:
    """Return whether the runs of a deployment, inferred or selected, can be among the events of a trigger."""
    if deployment_id is None:
        ids = [each.values for each in trigger.match if each.label == "resource.id"]
        return all(any(map(_may_be_run, values)) for values in ids)
    # Conditions on other labels or related resources may leave out the runs of the deployment.
    return not any(trigger.match_related) and LabelsPattern(trigger.match).match(RUN)


def _may_be_run(pattern: str) -> bool:
    """Return whether a pattern can match the id of a flow run as a resource."""
    literal = "" if pattern.startswith("!") else MAGIC.split(pattern, maxsplit=1)[0]
    return literal.startswith(ANY_RUN) or (literal != pattern and ANY_RUN.startswith(literal))
