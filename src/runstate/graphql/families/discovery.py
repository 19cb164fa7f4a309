"""Discovery of families: every module of this package that has root fields."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from runstate.graphql import families as package


def families() -> Iterator[Any]:
    """Yield modules and declared families, sorted by module; each may have a `Query`, `Mutation` or `Subscription`."""
    for each in sorted(iter_modules(package.__path__), key=lambda found: found.name):
        module = import_module(f"{package.__name__}.{each.name}")
        yield module
        if (declared := getattr(module, "FAMILY", None)) is not None:
            yield declared
