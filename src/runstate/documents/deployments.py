"""Values of deployments: versions, actors, steps, statuses."""

from datetime import datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from runstate.documents.access import ANONYMOUS, SERVICE, is_service
from runstate.documents.base import Document, JsonObject, Name, storable_json
from runstate.errors import Id

RECENT: Final = timedelta(seconds=60)


def _steps(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(step, dict) and len(step) == 1 for step in value):
        raise ValueError("the steps must be a list of objects with one key each, the step")
    return storable_json(value)


PullSteps = Annotated[Any, AfterValidator(_steps)]


class DeploymentStatus(Enum):
    """Whether a worker or runner has asked for runs of a deployment recently."""

    NOT_READY = "NOT_READY"
    """Not within the last 60 seconds."""
    READY = "READY"
    """Within the last 60 seconds."""


def polled(last: datetime | None, now: datetime) -> DeploymentStatus:
    """Return the status of a deployment whose runs were last asked for at some time."""
    return DeploymentStatus.READY if last and now - last <= RECENT else DeploymentStatus.NOT_READY


class Actor(Document):
    """Origin of an object or a change."""

    type: str | None = Field(default=None, description="CLIENT, SERVICE, SCHEDULE, AUTOMATION or another word.")
    id: Id | None = Field(default=None, description="Id of the object.")
    display_value: str | None = Field(default=None, description="Text to display.")


def origin(actor: str) -> Actor | None:
    """Return the origin of a change by a client or a service; None for an unknown client."""
    if actor == ANONYMOUS:
        return None
    kind = "SERVICE" if is_service(actor) else "CLIENT"
    return Actor(type=kind, display_value=actor.removeprefix(SERVICE))


class VersionInfo(Document):
    """Source of a deployment's version."""

    type: Name = Field(description="Kind of version control, for example vcs:git.")
    version: Name = Field(description="The version there, for example a commit.")
    extra: JsonObject = Field(default={}, description="Further keys: an object, for example branch, url, message.")
