"""The environment of commands."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from runstate.core.validation.json_schemas import JsonSchemas
from runstate.database import Database


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The database, the time, ids and randomness: all that a command takes from outside."""

    database: Database
    clock: Callable[[], datetime]
    new_id: Callable[[], UUID]
    draw: Callable[[], float]
    """Returns a random number from 0 to 1."""
    json_schemas: JsonSchemas = field(default_factory=JsonSchemas)
    """Validates values against schemas of clients."""
