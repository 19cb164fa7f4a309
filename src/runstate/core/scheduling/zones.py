"""Time zones, from the package `tzdata`: the same on every machine."""

from functools import lru_cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

NAMES: Final = frozenset(resources.files("tzdata").joinpath("zones").read_text().split())


@lru_cache(maxsize=None)
def zone_of(name: str) -> ZoneInfo:
    """Return the zone with an IANA name. Raise KeyError if there is none; names are case-sensitive."""
    if name not in NAMES:
        raise KeyError(name)
    with resources.files("tzdata.zoneinfo").joinpath(*name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)
