"""Default names of flow runs."""

import re
from uuid import UUID

from runstate.core.commands.flow_runs import readable_name

IDS = [UUID(int=number) for number in range(1000)]


def test_a_name_is_two_words() -> None:
    assert [name for name in map(readable_name, IDS) if not re.fullmatch("[a-z]+-[a-z]+", name)] == []


def test_a_name_depends_on_nothing_but_the_id() -> None:
    names = [readable_name(each) for each in IDS]

    assert [readable_name(each) for each in reversed(IDS)] == names[::-1]


def test_names_rarely_repeat() -> None:
    assert len({readable_name(each) for each in IDS}) > 990
