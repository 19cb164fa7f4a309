"""Time zones, from the package `tzdata`: the same on every machine."""

from functools import cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

NAMES: Final = frozenset(resources.files("tzdata").joinpath("zones").read_text().split())


@cache
def zone_of(name: str) -> ZoneInfo:
    """Return the zone with an IANA name. Names are case-sensitive; raise KeyError if it is unknown."""
    if name not in NAMES:
        raise KeyError(name)
    with resources.files("tzdata.zoneinfo").joinpath(*name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)
