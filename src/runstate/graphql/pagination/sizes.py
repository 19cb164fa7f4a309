"""Sizes of pages and other lists that an argument bounds."""

from runstate.errors import BadUserInput, LimitExceeded


def checked_size(size: int, largest: int, argument: str = "first") -> int:
    """Return the size. Raise LimitExceeded if it is too large, and BadUserInput if it is less than 1."""
    if size > largest:
        raise LimitExceeded("pageSize", largest, size)
    if size < 1:
        raise BadUserInput(f"`{argument}` must be at least 1.")
    return size
