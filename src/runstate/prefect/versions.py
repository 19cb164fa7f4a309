"""The version of the API that a client speaks, from its header."""

from collections.abc import Mapping
from typing import Final

from runstate.errors import BadRequest

SERVED: Final = "3.8.5"
"""Version that the server tells the client."""
HEADER: Final = "X-PREFECT-API-VERSION"
NEWEST: Final = (0, 8, 4)
OLDEST: Final = (0, 8, 0)


def version_of(headers: Mapping[str, str]) -> tuple[int, ...]:
    """Return the version in the headers of a request; without one, the newest. Raise BadRequest if it is too old."""
    given = headers.get(HEADER)
    if given is None:
        return NEWEST
    parts = given.split(".")
    # `isdigit` alone accepts digits such as ², which `int` does not.
    if len(parts) != len(NEWEST) or not all(part.isascii() and part.isdigit() for part in parts):
        raise BadRequest(f"`{HEADER}` must be a version such as 0.8.4.")
    version = tuple(map(int, parts))
    if version < OLDEST:
        raise BadRequest(f"The client speaks version {given} of the API; 0.8.0 is the oldest that is served.")
    return version
