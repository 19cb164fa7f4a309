"""The page about states, policies and rules equals what the code generates."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from runstate.core import policies
from runstate.core.checks import explain
from runstate.core.checks.explain import constructors, entered_in_words, in_words, left_in_words, states_page
from runstate.core.commands import run_inputs
from runstate.core.policies import CORE_FLOW, CORE_TASK
from runstate.core.proposal import ANY, Proposal, Rule, rule
from runstate.core.rules import cancelling, concurrency, terminal
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.rows import FlowRun

FILE = Path(__file__).parent.parent.parent / "docs" / "states.md"
PAGE = states_page()
RULES: set[Rule[Any]] = {each for policy in vars(policies).values() if isinstance(policy, tuple) for each in policy}
S = StateType


def test_the_page_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == PAGE


async def test_the_page_does_not_depend_on_the_order_of_sets() -> None:
    command = f"from {explain.__name__} import states_page; print(states_page(), end='')"
    changed = {"PYTHONHASHSEED": "1", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", command, env=os.environ | changed, stdout=asyncio.subprocess.PIPE
    )
    page, _ = await process.communicate()

    assert page.decode() == PAGE


@pytest.mark.parametrize("each", sorted(RULES | set(run_inputs.RESUME), key=repr), ids=repr)
def test_the_page_describes_every_rule(each: Rule[Any]) -> None:
    assert f"`{each.name}`" in PAGE
    assert " ".join(str(each.__doc__).split()) in PAGE


def test_the_page_lists_the_rules_of_a_policy_in_order() -> None:
    written: dict[str, tuple[Rule[Any], ...]] = {"### CORE_FLOW": CORE_FLOW, "### CORE_TASK": CORE_TASK}
    for heading, policy in written.items():
        section = PAGE.partition(heading)[2].partition("\n### ")[0]
        places = [section.index(f"| {number} | `{each.name}` |") for number, each in enumerate(policy, 1)]

        assert places == sorted(places)


def test_the_page_names_every_type_and_every_named_state() -> None:
    assert len(constructors()) == 19
    for make in constructors():
        assert f"| `{make.__name__}` |" in PAGE
    for kind in StateType:
        assert f"\n| {kind.value} |" in PAGE


def test_the_page_draws_the_transitions() -> None:
    diagram = PAGE.partition("```mermaid")[2].partition("```")[0].splitlines()
    arrows = {line.strip() for line in diagram if "-->" in line}

    assert arrows >= {"[*] --> SCHEDULED", "PENDING --> RUNNING", "RUNNING --> Final", "CANCELLING --> CANCELLED"}
    assert not arrows & {"[*] --> PAUSED", "SCHEDULED --> PAUSED", "CANCELLED --> PENDING", "Final --> PAUSED"}


@pytest.mark.parametrize(
    ("types", "words"),
    [
        (ANY, "anything"),
        (FINAL_TYPES, "any final type"),
        (frozenset(S) - FINAL_TYPES, "any type that is not final"),
        (ANY - {S.PENDING, None}, "anything but no state, PENDING"),
        (frozenset({S.RUNNING, S.SCHEDULED, None}), "no state, SCHEDULED, RUNNING"),
        (frozenset({S.FAILED}), "FAILED"),
    ],
)
def test_sets_of_types_are_written_in_words(types: frozenset[StateType | None], words: str) -> None:
    assert in_words(types, ANY) == words


def test_the_transitions_of_a_rule_are_written_in_words() -> None:
    assert left_in_words(cancelling.finish_cancelling) == "CANCELLING"
    assert entered_in_words(cancelling.finish_cancelling) == "anything but CANCELLED"
    assert left_in_words(concurrency.take_deployment_slot) == "anything but PENDING, RUNNING, CANCELLING"
    assert entered_in_words(terminal.reset_flow_run) == "any type that is not final"


def test_a_rule_about_every_transition_is_written_as_any() -> None:
    @rule()
    def everything(proposal: Proposal[FlowRun]) -> None:
        """Accept every proposal."""

    assert (left_in_words(everything), entered_in_words(everything)) == ("anything", "anything")
