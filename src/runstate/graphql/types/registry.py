"""The register of GraphQL types: modules fill it while they are imported, `build_schema` closes it.

Strawberry looks for the GraphQL type of a class in its attribute `__strawberry_definition__`. Everything else is kept
here: the options of inputs, and the inputs that are made from rows and documents.
"""

from collections.abc import Callable, Collection, Hashable
from typing import Any, Final, NamedTuple


class RegistrationError(TypeError):
    """A class cannot be a GraphQL type as it is declared, or is registered too late."""


class InputOptions(NamedTuple):
    """Differences of an input from its document."""

    name: str | None = None
    """Name of the input; by default the name of the document followed by `Input`."""
    only: Collection[str] | None = None
    """Members of the input, all optional; by default all members of the document."""
    one_of: bool = False
    """True if exactly one member must be set."""


class Registry:
    """Registered inputs and types. Nothing can be added once a schema is built."""

    def __init__(self) -> None:
        self.closed = False
        self.inputs: dict[Any, InputOptions] = {}
        self.made: dict[tuple[type, Hashable], type] = {}
        """Inputs, by kind (`Input`, `Where`, `OrderBy`) and by the row or document that they are made from."""

    def close(self) -> None:
        """Reject all later registrations."""
        self.closed = True

    def require_open(self, cls: type, what: str) -> None:
        """Raise RegistrationError if a schema, or an input made from the class, would lack the registration."""
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
        """Return the input of a kind for a row or document, made with the first call."""
        if (kind, of) not in self.made:
            self.made[kind, of] = make()
        return self.made[kind, of]


REGISTRY: Final = Registry()
"""The registry of this process. Schemas share it: a class has one GraphQL type. Tests of types have their own."""
