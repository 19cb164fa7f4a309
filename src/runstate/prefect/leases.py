"""Ids under which the client holds slots: one id stands for the leases of all limits that a request acquired."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

BITS: Final = 7
"""Bits for the number of leases, and as many for the place of one of them: a request names at most 100 limits."""
MOST: Final = 2**BITS - 1
VARIABLE: Final = 2 ** (2 * BITS) - 1


class LeaseIds:
    """The ids of the leases of one request, which differ in their last bits."""

    def __init__(self, new_id: Callable[[], UUID]) -> None:
        # The client knows one id for the slots of several limits; no table maps it to the leases, so the ids do.
        self.base = new_id().int & ~VARIABLE
        self.used = 0

    def __call__(self) -> UUID:
        """Return the id of the next lease."""
        self.used += 1
        return UUID(int=self.base | self.used)

    @property
    def together(self) -> UUID:
        """The id that stands for all of them."""
        return UUID(int=self.base | self.used << BITS)


def leases_of(together: UUID) -> list[UUID]:
    """Return the ids of the leases that an id stands for."""
    # An id that no request was given names leases that do not exist, which releases nothing.
    base, number = together.int & ~VARIABLE, together.int >> BITS & MOST
    return [UUID(int=base | place) for place in range(1, number + 1)]
