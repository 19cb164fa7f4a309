"""How much is under way at once, and how much may be."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runstate.errors import Overloaded


@dataclass(slots=True)
class InFlight:
    """What a process answers at the moment; Overloaded: it has enough to do."""

    most_operations: int = 1_000
    most_subscriptions: int = 10_000
    operations: int = 0
    subscriptions: int = 0

    @property
    def full(self) -> bool:
        """Whether no subscription is opened at the moment."""
        return self.subscriptions >= self.most_subscriptions

    @contextmanager
    def operation(self) -> Iterator[None]:
        """While a query or a mutation is answered."""
        if self.operations >= self.most_operations:
            raise Overloaded("Too many operations are under way; try again.")
        self.operations += 1
        try:
            yield
        finally:
            self.operations -= 1

    @contextmanager
    def subscription(self) -> Iterator[None]:
        """While a subscription is open."""
        if self.full:
            raise Overloaded("Too many subscriptions are open; try again.")
        self.subscriptions += 1
        try:
            yield
        finally:
            self.subscriptions -= 1
