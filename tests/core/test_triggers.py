"""Triggers fire as recorded, and whatever rounds the log is read in."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstate.core.automations.chains import Chain
from runstate.core.automations.compiled import Compiled
from runstate.core.automations.events import Event, TriggerVerdict
from runstate.core.automations.index import Index
from runstate.core.automations.metrics import Measurement
from runstate.core.automations.rounds import composite_ids, difference, window_ids
from runstate.core.automations.state import State, windows_in_order
from runstate.core.automations.steps import Fired, Input, Result, replay, step
from runstate.core.automations.windows import LATENESS
from runstate.documents.actions import TriggerState
from tests.oracle.recording import Scenario, read
from tests.oracle.triggers import (
    BEGIN,
    EVENTS,
    PREVIEWS,
    TRIGGER,
    compiled,
    document,
    event_id,
    events,
    instant,
    labels,
    names,
    own,
    seconds,
)

SCENARIOS = [each for each in read(EVENTS) if each.family in PREVIEWS]
GENERATED = [each for each in SCENARIOS if each.family.startswith("random")]


def began(*automations: Compiled) -> tuple[Index, State]:
    state = State(BEGIN)
    for each in automations:
        state.add(each)
    return Index(automations), state


def played(given: list[Input], *automations: Compiled) -> Result:
    return replay(*began(*automations), given, explain=True)


def automation(**trigger: Any) -> Compiled:
    defaults = {} if "triggers" in trigger else {"kind": "event", "posture": "REACTIVE"}
    return Compiled(event_id("automation"), TRIGGER.validate_python(defaults | trigger))


def event(name: str, at: float, *, occurred: float | None = None, **more: Any) -> Event:
    when = instant(at if occurred is None else occurred)
    return Event(event_id(f"{name} {at}"), name, when, instant(at), {"resource.id": "r"}, position=int(at * 10), **more)


def fired_at(found: Result) -> list[float]:
    return [seconds(each.firing.fired) for each in found.firings]


def shown(found: Result, step: dict[str, Any]) -> list[dict[str, Any]]:
    known = names(step)
    return [
        {
            "at": seconds(each.firing.fired),
            "labels": labels(each.firing.labels),
            "event": known[each.firing.event.event_id] if each.firing.event else None,
            "events": [known[part.event_id] for part in each.firing.parts],
        }
        for each in found.firings
    ]


def recorded(firings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def in_order(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = [{key: value for key, value in each.items() if value is not None} for each in values]
        return sorted(kept, key=lambda each: (each["label"], each.get("role", "")))

    return [each | {"at": round(each["at"], 3), "labels": in_order(each["labels"])} for each in firings]


@pytest.mark.parametrize("family", PREVIEWS)
def test_each_preview_of_a_trigger_fires_as_recorded(family: str) -> None:
    for scenario in (each for each in SCENARIOS if each.family == family):
        for each in map(own, scenario.steps):
            found = played([*events(each), instant(each["until"])], compiled(each))
            assert shown(found, each) == recorded(each["expect"]["firings"]), scenario.name


def test_the_windows_that_are_open_are_as_recorded() -> None:
    for scenario in (each for each in SCENARIOS if each.family == "windows"):
        (each,) = map(own, scenario.steps)
        until = instant(each["until"])
        state = played([*events(each), until], compiled(each)).state
        found = [
            {
                "path": list(leaf.path),
                "labels": labels(leaf.labels(key)),
                "count": window.count,
                "start": seconds(window.start),
                "end": seconds(window.end),
            }
            for leaf, key, window in windows_in_order(state)
            if window.end > until
        ]
        assert found == each["expect"]["open"], scenario.name


class Stored:
    """The state of triggers between two rounds, of which each round loads what it touches."""

    def __init__(self, index: Index, state: State) -> None:
        self.index, self.now = index, state.now
        self.windows, self.kept = dict(state.windows), dict(state.kept)
        self.waiting, self.seen = dict(state.waiting), set(state.seen)

    def round(self, given: list[Input]) -> list[Fired]:
        """Return the firings of a round."""
        arrivals = [each for each in given if isinstance(each, Event)]
        until = max(each.received if isinstance(each, Event) else each for each in given)
        touched = window_ids(self.index, [*arrivals, *self.waiting.values()])
        windows = {of: each for of, each in self.windows.items() if of in touched or each.end <= until}  # type: ignore[operator]
        # A follower needs to know about its leader only.
        leaders = {each.follows for each in [*arrivals, *self.waiting.values()]} | {each.id for each in arrivals}
        state = State(self.now, windows, {of: dict(rows) for of, rows in self.kept.items()}, dict(self.waiting))
        state.seen = self.seen & leaders
        state.load(self.index.automations.values())
        before = dict(windows)
        found = replay(self.index, state, given)
        written, removed = difference(before, state.windows)
        self.windows = {of: each for of, each in self.windows.items() if of not in removed} | written
        self.now, self.kept, self.waiting = state.now, state.kept, state.waiting
        self.seen |= state.seen
        return found.firings


def rounds(given: list[Input], random: Random) -> Iterator[list[Input]]:
    while given:
        size = random.randint(1, 5)
        yield given[:size]
        given = given[size:]


@given(scenario=st.sampled_from(GENERATED), random=st.randoms(use_true_random=False))
def test_the_same_stream_fires_the_same_in_whatever_rounds_it_is_read(scenario: Scenario, random: Random) -> None:
    (each,) = map(own, scenario.steps)
    arrivals = [replace(one, follows=random.choice([None, None, other.id])) for one, other in _pairs(each, random)]
    stream: list[Input] = [*arrivals, instant(each["until"] + 2000)]
    index, state = began(compiled(each))
    whole = replay(index, state, stream).firings
    stored = Stored(*began(compiled(each)))
    # The documents are compiled twice, so their ids differ.
    stored.index = index
    stored.windows = dict(began_windows(index))
    cut = [fired for part in rounds(stream, random) for fired in stored.round(part)]
    assert cut == whole


def began_windows(index: Index) -> dict[Any, Any]:
    state = State(BEGIN)
    for each in index.automations.values():
        state.add(each)
    return state.windows


def _pairs(step: dict[str, Any], random: Random) -> list[tuple[Event, Event]]:
    given = events(step)
    return [(one, random.choice(given)) for one in given]


@given(random=st.randoms(use_true_random=False))
def test_the_order_in_which_automations_are_listed_does_not_matter(random: Random) -> None:
    picked = random.sample(GENERATED, 3)
    steps = [own(each.steps[0]) for each in picked]
    all_of_them = [
        Compiled(event_id(str(place)), TRIGGER.validate_python(document(each["trigger"])))
        for place, each in enumerate(steps)
    ]
    stream: list[Input] = [*events(steps[0]), instant(steps[0]["until"])]
    shuffled = random.sample(all_of_them, len(all_of_them))
    assert played(stream, *shuffled).firings == played(stream, *all_of_them).firings


def test_windows_of_a_proactive_trigger_follow_one_another() -> None:
    found = played([event("a", 3), instant(45)], automation(posture="PROACTIVE", expect=["a"], within_seconds=10))
    assert fired_at(found) == [20, 30, 40]


def test_a_proactive_trigger_with_for_each_fires_from_its_first_event_on() -> None:
    silent = automation(posture="PROACTIVE", expect=["a"], within_seconds=10, for_each=[{"label": "resource.id"}])
    assert fired_at(played([event("a", 3), instant(45)], silent)) == [23, 33, 43]


def test_without_a_start_no_proactive_window_opens() -> None:
    started = automation(posture="PROACTIVE", after=["start"], expect=["a"], within_seconds=10)
    assert fired_at(played([instant(100)], started)) == []
    assert fired_at(played([event("start", 50), instant(100)], started)) == [60]


def test_a_late_event_does_not_delay_deadlines() -> None:
    arrivals: list[Input] = [event("a", 15, occurred=5), event("a", 38, occurred=22), instant(90)]
    silent = automation(posture="PROACTIVE", expect=["a"], within_seconds=20)
    assert fired_at(played(arrivals, silent)) == [60, 80]


def test_a_start_after_the_end_of_a_window_opens_another() -> None:
    started = automation(after=["start"], expect=["b"], within_seconds=10)
    assert fired_at(played([event("start", 1), event("start", 20), event("b", 25)], started)) == [25]


def test_a_start_in_an_open_window_does_not_prolong_it() -> None:
    started = automation(after=["start"], expect=["b"], within_seconds=10)
    assert fired_at(played([event("start", 1), event("start", 8), event("b", 12)], started)) == []


def test_events_without_a_window_are_counted_without_end() -> None:
    counting = automation(expect=["a"], threshold=2)
    assert fired_at(played([event("a", 1), event("a", 1_000_000)], counting)) == [1_000_000]


def test_a_window_that_ended_is_kept_for_late_events() -> None:
    once = automation(expect=["a"], within_seconds=10)
    late = event("a", 600, occurred=5)
    assert fired_at(played([event("a", 4), late], once)) == [4]


def test_the_state_of_old_windows_is_forgotten() -> None:
    many = automation(expect=["a"], within_seconds=10, for_each=[{"label": "resource.id"}])
    found = played([event("a", 4), instant(30 + LATENESS.total_seconds())], many)
    assert not found.state.windows
    assert not found.state.queue


def test_an_event_of_the_far_past_lets_a_proactive_trigger_fire_once() -> None:
    silent = automation(posture="PROACTIVE", expect=["a"], within_seconds=10, for_each=[{"label": "resource.id"}])
    found = played([event("a", 50_000, occurred=-1e9), instant(50_011)], silent)
    assert len(found.firings) == 1


def test_an_event_of_the_future_ends_a_proactive_window() -> None:
    silent = automation(posture="PROACTIVE", expect=["a"], within_seconds=10)
    found = played([event("a", 3, occurred=25), instant(29)], silent)
    assert fired_at(found) == [3]


def test_a_sequence_of_the_same_trigger_fires_at_every_second_event() -> None:
    twice = automation(kind="sequence", triggers=[a_trigger("a"), a_trigger("a")])
    assert fired_at(played([event("a", at) for at in (1, 2, 3, 4, 5)], twice)) == [2, 4]


def test_an_event_counts_for_one_trigger_of_a_sequence() -> None:
    steps = automation(kind="sequence", triggers=[a_trigger("a"), a_trigger("*"), a_trigger("b")])
    assert fired_at(played([event("a", 1), event("b", 2), event("b", 3)], steps)) == [3]


def a_trigger(*expect: str) -> dict[str, Any]:
    return {"kind": "event", "posture": "REACTIVE", "expect": expect}


def test_an_id_counts_once_however_late_it_is_repeated() -> None:
    one = event("a", 1)
    found = played([one, replace(one, received=instant(1900))], automation(expect=["a"]))
    assert fired_at(found) == [1]
    assert [each.verdict for each in found.explanation] == [TriggerVerdict.FIRED, TriggerVerdict.REPEATED]


def test_a_chain_that_arrives_backwards_is_evaluated_with_its_first_event() -> None:
    ids = [event_id(f"a {at}") for at in range(100, 70, -1)]
    chain = [event("a", at, occurred=200 - at, follows=ids[99 - at] if at < 100 else None) for at in range(71, 101)]
    found = played([*chain], automation(expect=["a"]))
    assert [seconds(each.firing.fired) for each in found.firings] == [100] * 30
    assert [each.firing.event.event_id for each in found.firings if each.firing.event] == ids


def test_a_disabled_automation_counts_nothing_and_keeps_its_windows() -> None:
    counting = automation(expect=["a"], threshold=2, within_seconds=60)
    index, state = began(counting)
    step(index, state, event("a", 1))
    state.disable(counting)
    assert not step(index.without(counting.id), state, event("a", 2)).firings
    state.add(counting)
    assert len(step(index, state, event("a", 3)).firings) == 1


def test_an_automation_that_is_enabled_late_forgets_ended_windows() -> None:
    silent = automation(posture="PROACTIVE", expect=["a"], within_seconds=10)
    index, state = began(silent)
    state.disable(silent)
    assert not step(index.without(silent.id), state, instant(100)).firings
    state.add(silent)
    assert fired_at(step(index, state, instant(125))) == [110, 120]


def test_a_removed_automation_leaves_nothing() -> None:
    both = automation(kind="compound", triggers=[a_trigger("a"), a_trigger("b")])
    index, state = began(both)
    step(index, state, event("a", 1))
    assert state.kept
    state.remove(both)
    assert not state.kept
    assert not state.windows


def test_a_missing_label_matches_nothing_not_even_its_negation() -> None:
    found = played([event("a", 1)], automation(match=[{"label": "env", "values": ["!prod"]}]))
    assert [each.verdict for each in found.explanation] == [TriggerVerdict.NOT_COVERED]


def test_a_metric_fires_after_a_while_and_is_resolved_after_a_while() -> None:
    given = {"kind": "metric", "metric": "SUCCESSES", "operator": "LT", "threshold": 0.5}
    low = Compiled(event_id("metric"), TRIGGER.validate_python(given))

    def measured(at: float, value: float | None) -> Measurement:
        return Measurement(low.root.id, instant(at), value)

    values = [(0, 0.9), (30, 0.1), (60, 0.9), (90, 0.1), (390, 0.2), (700, 0.1), (730, None), (760, 0.1), (800, 0.8)]
    found = played([*(measured(at, value) for at, value in values), measured(1100, 0.8)], low)
    assert [(seconds(each.firing.fired), each.firing.state) for each in found.firings] == [
        (390, TriggerState.TRIGGERED),
        (1100, TriggerState.RESOLVED),
    ]


def chained(*automations: str, cause: str = "f") -> Chain:
    return Chain(event_id("root"), event_id(cause), tuple(map(event_id, automations)))


def test_a_firing_is_part_of_the_chain_of_its_event() -> None:
    (fired,) = played([event("a", 1, chain=chained("x", "y"))], automation(expect=["a"])).firings
    assert (fired.chain, fired.is_stopped) == (chained("x", "y"), False)


def test_a_chain_ends_after_twenty_firings() -> None:
    others = [str(place) for place in range(20)]
    found = played([event("a", at, chain=chained(*others[:at])) for at in (19, 20)], automation(expect=["a"])).firings
    assert [each.is_stopped for each in found] == [False, True]


def test_the_absence_of_events_begins_a_chain_of_its_own() -> None:
    given: list[Input] = [event("a", 1, chain=chained("automation")), instant(25)]
    (fired,) = played(given, automation(expect=["a"], posture="PROACTIVE", threshold=2, within_seconds=20)).firings
    assert fired.firing.event
    assert fired.chain is None


def storm(number: int, events: int) -> tuple[int, int]:
    """Return the number of firings and of stopped ones, if automations match each other, with so many events each."""
    mutual = [
        Compiled(event_id(f"m{place}"), TRIGGER.validate_python({"kind": "event", "posture": "REACTIVE"}))
        for place in range(number)
    ]
    index, state = began(*mutual)
    todo, counted, stopped = deque([event("begin", 1)]), 0, 0
    while todo:
        for each in step(index, state, todo.popleft()).firings:
            if each.is_stopped:
                stopped += 1
                continue
            counted += 1
            before = each.chain or Chain(event_id("begin 1"), each.id, ())
            chain = Chain(before.root, each.id, (*before.automations, each.automation_id))
            todo += [event(f"told {each.id} {place}", 2, chain=chain) for place in range(events)]
    return counted, stopped


@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_automations_that_all_match_each_other_come_to_an_end(number: int) -> None:
    counted, stopped = storm(number, 3)
    assert 20 <= counted <= 300 * number
    assert stopped


def test_an_automation_reacts_to_all_runs_of_one_firing() -> None:
    many: list[Input] = [event("a", at, chain=chained("x", cause=f"firing {at % 500}")) for at in range(3_000)]
    assert not any(each.is_stopped for each in played(many, automation(expect=["a"])).firings)


def test_an_automation_that_starts_its_own_runs_is_stopped_after_twenty() -> None:
    many = [event("a", at, chain=chained("automation", cause=f"firing {at}")) for at in range(30)]
    found = played(list(many), automation(expect=["a"])).firings
    assert [each.is_stopped for each in found] == [False] * 20 + [True] * 10


def test_a_reaction_counts_for_an_hour() -> None:
    many = [event("a", at * 300, chain=chained("automation", cause=f"firing {at}")) for at in range(30)]
    assert not any(each.is_stopped for each in played(list(many), automation(expect=["a"])).firings)


def test_each_firing_has_an_id_of_its_own() -> None:
    either = automation(kind="compound", require=1, triggers=[a_trigger("a"), a_trigger("*")])
    found = played([event("a", 1)], either).firings
    assert len(found) == len({each.id for each in found}) == 2


def test_a_round_knows_what_it_touches() -> None:
    both = automation(kind="compound", triggers=[a_trigger("a"), a_trigger("b")])
    index = Index([both])
    assert composite_ids(index, [event("a", 1)]) == {both.root.id}
    assert not composite_ids(index, [event("c", 1)])
    assert window_ids(index, [event("a", 1)]) == {(both.leaves[0].id, ())}
