"""Turns of requests with large bodies: parsed, JSON takes up to thirty times its bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final

SMALL_BYTES: Final = 2**16
"""Bytes of a body that needs no turn."""
AT_ONCE_BYTES: Final = 2**21
"""Bytes of large bodies that are parsed and executed at once. Others wait, and are not parsed yet."""
NOTHING: Final = nullcontext()


class LargeRequests:
    """The requests with large bodies of a process."""

    def __init__(self, largest: int) -> None:
        self.left = max(largest, AT_ONCE_BYTES)
        self.changed = asyncio.Condition()

    def turn(self, size: int) -> AbstractAsyncContextManager[None]:
        """Return the turn of a request whose body has so many bytes."""
        return NOTHING if size <= SMALL_BYTES else self._turn(size)

    @asynccontextmanager
    async def _turn(self, size: int) -> AsyncIterator[None]:
        async with self.changed:
            await self.changed.wait_for(lambda: self.left >= size)
            self.left -= size
        try:
            yield
        finally:
            async with self.changed:
                self.left += size
                self.changed.notify_all()
