"""Garbage collection by the clock: in steps that the event loop hardly notices, the long one when nothing is asked."""

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Final

YOUNG: Final = 50_000
"""So many more new objects are collected without waiting for the clock. An answer is many objects for a moment."""
WORTH: Final = 5_000
"""Fewer new objects are not worth a look each second."""
MIDDLE_SECONDS: Final = 10.0
"""Seconds between two collections of what outlived one, and two returns of free memory."""
QUIET_SECONDS: Final = 60.0
"""Seconds between two collections of everything, if nothing is being answered."""
LATEST_SECONDS: Final = 300.0
"""Seconds between two collections of everything in any case."""


class Collector:
    """Collects garbage of a server, and returns free memory to the operating system."""

    def __init__(self, now: float) -> None:
        self.middle = self.whole = now
        """When these were collected last."""
        self.trim = _trim()
        gc.freeze()  # what was loaded stays
        gc.set_threshold(YOUNG, 1_000_000, 1_000_000)

    def tick(self, now: float, *, is_quiet: bool) -> None:
        """Collect what it is time for."""
        if now - self.whole >= (QUIET_SECONDS if is_quiet else LATEST_SECONDS):
            self.middle = self.whole = now
            gc.collect()
        elif now - self.middle >= MIDDLE_SECONDS:
            self.middle = now
            gc.collect(1)
            self.trim(0)
        elif gc.get_count()[0] > WORTH:
            gc.collect(0)


def _trim() -> Callable[[int], object]:
    """Return the function of the C library that returns free memory; one that does nothing where there is none."""
    found: Callable[[int], object] = getattr(ctypes.CDLL(None), "malloc_trim", int) if sys.platform == "linux" else int
    return found
