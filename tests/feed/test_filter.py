"""The filter of transitions: evaluation in memory and in SQL agree."""

import random
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from runstate.database import Database
from runstate.documents.states import RunKind, StateType
from runstate.feed import TRANSITIONS, TagFilter, TransitionFilter
from tests.feed.factories import entry, write

IDS = [UUID(int=number) for number in range(1, 5)]
TAGS = ["a", "b", "c", 'quo"te', "nul\0"]
NAMES = ["Running", "Retrying", "nul\0"]


def some(chance: random.Random, values: list[Any]) -> Any:
    """Return None or a random sample of the values, perhaps empty."""
    return chance.choice([None, frozenset(chance.sample(values, chance.randint(0, len(values))))])


def any_tags(chance: random.Random) -> TagFilter:
    return TagFilter(
        all=frozenset(chance.sample(TAGS, chance.randint(0, 2))),
        any=some(chance, TAGS),
        none=frozenset(chance.sample(TAGS, chance.randint(0, 1))),
        empty=chance.choice([None, None, True, False]),
    )


def anything(chance: random.Random) -> TransitionFilter:
    asked = {
        "run_kind": chance.choice([None, *RunKind]),
        "run_ids": some(chance, IDS),
        "flow_run_ids": some(chance, IDS),
        "flow_ids": some(chance, IDS),
        "deployment_ids": some(chance, IDS),
        "state_types": some(chance, list(StateType)),
        "state_names": some(chance, NAMES),
        "tags": chance.choice([None, any_tags(chance)]),
    }
    return TransitionFilter(**{name: asked[name] for name in chance.sample(sorted(asked), chance.randint(0, 3))})


def any_entry(chance: random.Random, version: int) -> dict[str, Any]:
    return entry(
        chance.choice(IDS),
        version,
        run_kind=chance.choice(list(RunKind)),
        flow_run_id=chance.choice([None, *IDS]),
        flow_id=chance.choice([None, *IDS]),
        deployment_id=chance.choice([None, *IDS]),
        state_type=chance.choice(list(StateType)),
        state_name=chance.choice(NAMES[:2]),
        tags=chance.sample(TAGS[:4], chance.randint(0, 3)),
    )


async def test_memory_and_sql_agree(database: Database) -> None:
    chance = random.Random(7)
    await write(database, *(any_entry(chance, version) for version in range(1, 200)))
    found = 0
    async with database.read() as connection:
        everything = [TRANSITIONS.entry(row) for row in await connection.execute(sa.select(*TRANSITIONS.columns))]
        for _ in range(300):
            wanted = anything(chance)
            rows = await connection.execute(sa.select(*TRANSITIONS.columns).where(*wanted.clauses()))
            in_sql = {row.seq for row in rows}
            assert in_sql == {each.seq for each in everything if wanted.match(each)}, wanted
            found += 0 < len(in_sql) < len(everything)

    assert found > 50


def test_an_empty_set_matches_nothing() -> None:
    assert not TransitionFilter(run_ids=frozenset()).match(_of(entry(IDS[0])))


def test_without_a_condition_everything_matches() -> None:
    assert TransitionFilter().match(_of(entry(IDS[0])))


def _of(columns: dict[str, Any]) -> Any:
    return type("Entry", (), columns)()
