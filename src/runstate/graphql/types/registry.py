"""The register of GraphQL types: modules fill it while they are imported, `build_schema` closes it.

Strawberry looks for the GraphQL type of a class in its attribute `__strawberry_definition__`. Nothing else is kept on
classes: the options of inputs, and the inputs that are made of rows and documents, are kept here.
"""

from collections.abc import Callable, Collection, Hashable
from typing import Any, Final, NamedTuple


class RegistrationError(TypeError):
    """A class that cannot be a GraphQL type as it is declared, or that is registered too late."""


class InputOptions(NamedTuple):
    """Differences of an input from its document."""

    name: str | None = None
    """The name of the input; null: the name of the document with `Input` after it."""
    only: Collection[str] | None = None
    """The members that the input has, each of which may be left out; null: all."""
    one_of: bool = False
    """Whether exactly one member is given."""


class Registry:
    """Registered inputs and types; nothing is added once a schema is built."""

    def __init__(self) -> None:
        self.closed = False
        self.inputs: dict[Any, InputOptions] = {}
        self.made: dict[tuple[type, Hashable], type] = {}
        """Inputs by their kind (`Input`, `Where`, `OrderBy`) and the row or document that they are made of."""

    def close(self) -> None:
        """Refuse all later registrations."""
        self.closed = True

    def require_open(self, cls: type, what: str) -> None:
        """Raise RegistrationError if a schema or an input of the class exists, which would lack the registration."""
        if self.closed:
            raise RegistrationError(
                f"{what} is registered after the schema was built. Register it in a module that the schema imports."
            )
        for kind, of in self.made:
            if of is cls:
                raise RegistrationError(
                    f"{what} is registered after {kind.__name__}[{cls.__name__}] was made, which lacks it. "
                    "Register it before a schema is built."
                )

    def make(self, kind: type, of: Hashable, make: Callable[[], type]) -> type:
        """Return the input of a kind for a row or document. It is made once."""
        if (kind, of) not in self.made:
            self.made[kind, of] = make()
        return self.made[kind, of]


REGISTRY: Final = Registry()
"""The registry of this process: classes have one GraphQL type, so schemas share it. Tests of types have their own."""
