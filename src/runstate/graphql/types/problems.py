"""What a client got wrong, as members of the unions that mutations answer with."""

from enum import Enum

import strawberry

from runstate import errors
from runstate.graphql.types.derive import register_type
from runstate.graphql.types.fields import object_type


class ProblemCode(Enum):
    """What kind of problem it is."""

    NOT_FOUND = "NOT_FOUND"
    """Nothing has an id that the input names."""
    INVALID_INPUT = "INVALID_INPUT"
    """The input contradicts itself or a limit."""
    VERSION_CONFLICT = "VERSION_CONFLICT"
    """The run has moved on from the version that was expected."""
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    """The idempotency key was used for another proposal to this run."""


register_type(ProblemCode)


@strawberry.interface(description="What a client got wrong.")
class Problem:
    """What a client got wrong."""

    code: ProblemCode = strawberry.field(description="What kind of problem it is.")
    message: str = strawberry.field(description="What is wrong, for people.")


@object_type
class NotFound(Problem):
    """Nothing has an id that the input names."""

    missing_id: strawberry.ID | None = strawberry.field(description="The id that nothing has.")


@object_type
class InvalidInput(Problem):
    """The input contradicts itself or a limit."""

    path: list[str] = strawberry.field(description="Where in the input, from the outside; empty: as a whole.")


@object_type
class VersionConflict(Problem):
    """The run has moved on from the version that was expected."""

    current_version: int = strawberry.field(description="The version that the run is at.")


@object_type
class IdempotencyConflict(Problem):
    """The idempotency key was used for another proposal to this run."""


AnyProblem = NotFound | InvalidInput | VersionConflict | IdempotencyConflict


def problem(error: errors.RunstateError) -> AnyProblem:
    """The problem that an exception stands for; one that stands for none is raised again."""
    match error:
        case errors.NotFound():
            missing_id = None if error.missing_id is None else strawberry.ID(error.missing_id)
            return NotFound(code=ProblemCode.NOT_FOUND, message=error.message, missing_id=missing_id)
        case errors.InvalidInput():
            return InvalidInput(code=ProblemCode.INVALID_INPUT, message=error.message, path=list(error.path))
        case errors.VersionConflict():
            code = ProblemCode.VERSION_CONFLICT
            return VersionConflict(code=code, message=error.message, current_version=error.current_version)
        case errors.IdempotencyConflict():
            return IdempotencyConflict(code=ProblemCode.IDEMPOTENCY_CONFLICT, message=error.message)
    raise error
