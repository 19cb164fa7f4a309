"""Types that are made when the schema is built."""

import dataclasses
from collections.abc import Callable
from types import NoneType
from typing import Any

from strawberry.types.lazy_type import LazyType


@dataclasses.dataclass(frozen=True)
class DeferredType(LazyType[Any, Any]):
    """A type that is made when the schema is built, so that types can refer to each other."""

    make: Callable[[], type] = lambda: NoneType

    def resolve_type(self) -> type:
        """Make the type."""
        return self.make()


def lazy_type(name: str, make: Callable[[], type]) -> Any:
    """Return a type of this name that is made when the schema is built."""
    return DeferredType(name, __name__, None, make)
