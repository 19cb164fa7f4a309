"""Garbage collection on a schedule: short steps often, and the long one while no request is being answered."""

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Final

YOUNG: Final = 50_000
"""Number of new objects at which Python collects between ticks. High, because an answer briefly needs many objects."""
WORTH: Final = 5_000
"""Minimum number of new objects for a collection at a tick."""
MIDDLE_SECONDS: Final = 10.0
"""Seconds between two collections of objects that survived one, each followed by a release of free memory."""
QUIET_SECONDS: Final = 60.0
"""Seconds between two full collections while no request is being answered."""
LATEST_SECONDS: Final = 300.0
"""Seconds between two full collections under constant load."""


class Collector:
    """Collector of a server's garbage, which also releases free memory to the operating system."""

    def __init__(self, now: float) -> None:
        self.middle = self.whole = now
        """Times of the last collection of the middle generation and of the last full one."""
        self.trim = _trim()
        gc.freeze()  # the application is never freed, so collections need not visit its objects
        # Collections of the older generations take long, so `tick` decides when they run.
        gc.set_threshold(YOUNG, 1_000_000, 1_000_000)

    def tick(self, now: float, *, is_quiet: bool) -> None:
        """Run the collection that is due, if any."""
        if now - self.whole >= (QUIET_SECONDS if is_quiet else LATEST_SECONDS):
            self.middle = self.whole = now
            gc.collect()
        elif now - self.middle >= MIDDLE_SECONDS:
            self.middle = now
            gc.collect(1)
            # Collections leave free pages in the heap, which the C library does not return by itself.
            self.trim(0)
        elif gc.get_count()[0] > WORTH:
            gc.collect(0)


def _trim() -> Callable[[int], object]:
    """Return `malloc_trim` of the C library; on other systems a function that does nothing."""
    # musl has no malloc_trim.
    found: Callable[[int], object] = getattr(ctypes.CDLL(None), "malloc_trim", int) if sys.platform == "linux" else int
    return found
