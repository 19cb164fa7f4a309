"""Dictionaries that remember which of their keys were changed."""

from __future__ import annotations

from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Touched(dict[K, V]):
    """A dictionary that remembers keys whose values were set, removed or handed out for changes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.touched: set[K] = set()

    def __setitem__(self, key: K, value: V) -> None:
        """Set a value."""
        self.touched.add(key)
        super().__setitem__(key, value)

    def __delitem__(self, key: K) -> None:
        """Remove a value."""
        self.touched.add(key)
        super().__delitem__(key)

    def pop(self, key: K, *default: Any) -> Any:
        """Remove and return a value."""
        self.touched.add(key)
        return super().pop(key, *default)

    def setdefault(self, key: K, default: Any = None) -> Any:
        """Return a value, which may then be changed, or set it."""
        self.touched.add(key)
        return super().setdefault(key, default)
