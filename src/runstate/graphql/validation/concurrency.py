"""Operations in flight, and their limits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runstate.errors import Overloaded


@dataclass(slots=True)
class InFlight:
    """The number of operations and open subscriptions of a process. Raises Overloaded at a limit."""

    max_operations: int = 1_000
    max_subscriptions: int = 10_000
    operations: int = 0
    subscriptions: int = 0

    @property
    def full(self) -> bool:
        """Whether no further subscription can be opened."""
        return self.subscriptions >= self.max_subscriptions

    @contextmanager
    def operation(self) -> Iterator[None]:
        """Count a query or a mutation while it is executed."""
        if self.operations >= self.max_operations:
            raise Overloaded("Too many operations are in flight; retry.")
        self.operations += 1
        try:
            yield
        finally:
            self.operations -= 1

    @contextmanager
    def subscription(self) -> Iterator[None]:
        """Count a subscription while it is open."""
        if self.full:
            raise Overloaded("Too many subscriptions are open; retry.")
        self.subscriptions += 1
        try:
            yield
        finally:
            self.subscriptions -= 1
