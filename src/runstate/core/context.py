"""The context of commands."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from runstate.core.actions.rendering import Templates
from runstate.core.actions.sending import Sender
from runstate.core.keyring import Keyring
from runstate.core.scheduling.calendar import Calendar
from runstate.core.scheduling.horizon import Horizon
from runstate.core.validation.json_schemas import JsonSchemas
from runstate.database import Database
from runstate.documents.access import ANONYMOUS
from runstate.feed.lines import Lines


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The dependencies of commands: database, clock, new ids, random numbers and schema validation."""

    database: Database
    clock: Callable[[], datetime]
    new_id: Callable[[], UUID]
    draw: Callable[[], float]
    """Source of random numbers from 0 to 1."""
    keyring: Keyring = field(default_factory=Keyring)
    """Encrypts and decrypts secrets."""
    json_schemas: JsonSchemas = field(default_factory=JsonSchemas)
    """Validator of values against schemas of clients."""
    sender: Sender = field(default_factory=Sender)
    """Sends webhooks and notifications."""
    templates: Templates = field(default_factory=Templates)
    """Renderer of templates of clients."""
    calendar: Calendar = field(default_factory=Calendar)
    """Dates of schedules that clients ask for."""
    scheduler_calendar: Calendar = field(default_factory=Calendar)
    """Dates of schedules for the scheduler, so that clients cannot keep it waiting."""
    horizon: Horizon = field(default_factory=Horizon)
    """The dates of schedules that become runs."""
    lines: Lines | None = None
    """Lines for the subscribers of this process; None without subscribers."""
    actor: str = ANONYMOUS
    """Name of the client, or of the service, on whose behalf commands run."""
