"""Generator of docs/states.md, the page about states, policies and rules. Its tables are computed by the rules."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from inspect import cleandoc, getdoc, getmembers, getmodule, getsource, isfunction, signature
from itertools import pairwise
from textwrap import dedent
from typing import Any, Final
from uuid import UUID

from runstate.core import policies, states
from runstate.core.commands import run_inputs
from runstate.core.policies import CORE_FLOW, CORE_TASK
from runstate.core.proposal import ANY, Decision, Proposal, Rule, decide
from runstate.core.states import State
from runstate.documents.decisions import OrchestrationStatus
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import FINAL_TYPES, StateDetails, StateType
from runstate.rows import FlowRun, TaskRun

NOW: Final = datetime(2000, 1, 1, tzinfo=UTC)
KINDS: Final = [kind for kind in StateType if kind not in FINAL_TYPES] + [
    kind for kind in StateType if kind in FINAL_TYPES
]
FINAL: Final = [kind for kind in KINDS if kind in FINAL_TYPES]

INTRODUCTION: Final = """
# States, policies and rules

This page is generated from the code by `make states` (`runstate.core.checks.explain`); a test compares both.

A run is in one state at a time. A client proposes the next state. The rules of a policy judge the proposal in order;
the first rule that objects decides. Without an objection, the run enters the state with the changes that rules made.
"""
NAMED: Final = """
## Named states

Most rules depend on the type only. The name is for people: a type can have any name, by default its own in words. The
server uses these names, with constructors in `runstate.core.states`.
"""
DIAGRAM: Final = """
## Transitions between types

The diagram shows flow runs of a deployment that propose states without details, if nothing prevents it: no full limit,
no time in the future, no persisted result, no expired pause, no retry. An arrow from or to the box stands for arrows
from or to each type in it.
"""
TABLE: Final = """
### Flow runs

| | |
| --- | --- |
| A | accepted |
| D | accepted for a run of a deployment, otherwise aborted |
| C | rejected; the run becomes CANCELLED instead, because it has no infrastructure to stop |
| R | rejected: the run stays in its state |
| X | aborted |
"""
POLICIES: Final = """
## Policies

A rule judges a proposal if the run leaves and enters one of the types of the rule. `MINIMAL_FLOW` and `MINIMAL_TASK`
decide forced proposals and first states of runs. `BACKGROUND_TASK` decides proposals for task runs that are marked as
`deferred` in their details. `CORE_FLOW` and `CORE_TASK` decide all others. The answer to a proposal, also to a dry run,
contains the verdict of each rule.
"""


def states_page() -> str:
    """Return the page in Markdown."""
    parts = [
        INTRODUCTION,
        "## Types",
        _types(),
        NAMED,
        _table(("name", "type", "constructor", "meaning"), _named()),
        DIAGRAM,
        _diagram(),
        TABLE,
        _matrix(_flow_run_cell),
        "### Task runs without a flow run, or with a RUNNING flow run",
        _matrix(_task_run_cell),
        POLICIES,
        *(part for name, rules in _policies() for part in _policy(name, rules)),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _types() -> str:
    said = _documented(StateType)
    rows = [(kind.value, "yes" if kind in FINAL_TYPES else "", said[kind.name]) for kind in KINDS]
    return _table(("type", "final", "meaning"), rows)


def _documented(source: Any) -> dict[str, str]:
    """Return the docstrings below the assignments in a class or a module, by assigned name."""
    # Python does not keep these docstrings, so they are read from the source.
    tree: ast.Module | ast.ClassDef = ast.parse(dedent(getsource(source)))
    if isinstance(tree.body[0], ast.ClassDef):
        tree = tree.body[0]
    return dict(_docstrings(tree.body))


def _docstrings(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for assigned, said in pairwise(body):
        target = assigned.targets[0] if isinstance(assigned, ast.Assign) else getattr(assigned, "target", None)
        if isinstance(target, ast.Name) and isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant):
            yield target.id, cleandoc(str(said.value.value))


def constructors() -> list[Callable[..., State]]:
    """Return the functions that create states, in source order."""
    made = [each for _, each in getmembers(states, isfunction) if signature(each).return_annotation == "State"]
    own = [each for each in made if getmodule(each) is states]
    # getmembers sorts by name; the page follows the source.
    return sorted(own, key=lambda each: each.__code__.co_firstlineno)


def _named() -> Iterator[tuple[str, str, str, str]]:
    for make in constructors():
        state = make(NOW) if "now" in signature(make).parameters else make()
        yield state.name, state.type.value, f"`{make.__name__}`", getdoc(make) or ""


def _plain(kind: StateType) -> State:
    return State(type=kind, details=StateDetails(scheduled_time=NOW if kind is StateType.SCHEDULED else None))


def _flow_run(*, deployed: bool) -> FlowRun:
    needed: dict[str, Any] = dict.fromkeys(("parent_task_run_id", "infrastructure_pid"))
    return FlowRun.of(
        needed | {"run_count": 0, "policy": FlowRunPolicy(), "deployment_id": UUID(int=1) if deployed else None}
    )


def _task_run() -> TaskRun:
    return TaskRun.of({"run_count": 0, "policy": TaskRunPolicy(), "flow_run_run_count": 0})


def _decision(run: Any, left: StateType | None, entered: StateType, policy: Sequence[Rule[Any]]) -> Decision[Any]:
    """Return the decision on a proposal of a state without details."""
    initial = _plain(left) if left else None
    return decide(Proposal(run=run, initial=initial, proposed=_plain(entered), now=NOW), policy)


def _letter(decision: Decision[Any]) -> str:
    if decision.status is OrchestrationStatus.REJECT:
        return "C" if decision.state else "R"
    return {"ACCEPT": "A", "ABORT": "X", "WAIT": "W"}[decision.status.value]


def _flow_run_cell(left: StateType | None, entered: StateType) -> str:
    alone, deployed = (_letter(_decision(_flow_run(deployed=each), left, entered, CORE_FLOW)) for each in (False, True))
    return alone if alone == deployed else "D"


def _task_run_cell(left: StateType | None, entered: StateType) -> str:
    return _letter(_decision(_task_run(), left, entered, CORE_TASK))


def _matrix(cell: Callable[[StateType | None, StateType], str]) -> str:
    rows = [(_kind(left), *(cell(left, entered) for entered in KINDS)) for left in (None, *KINDS)]
    return _table(("from \\ to", *(kind.value for kind in KINDS)), rows)


def _kind(kind: StateType | None) -> str:
    return kind.value if kind else "no state"


def _diagram() -> str:
    """Return the table of flow runs as a diagram. Equal arrows of all final types become one arrow of their box."""
    leads = {(left, to) for left in (None, *KINDS) for to in KINDS if _flow_run_cell(left, to) in {"A", "D"}}
    lines = ["stateDiagram-v2", "    state Final {", *(f"        {kind.value}" for kind in FINAL), "    }"]
    lines += [f"    {left} --> {to}" for left, to in _arrows(leads)]
    return "```mermaid\n" + "\n".join(lines) + "\n```"


def _arrows(leads: set[tuple[StateType | None, StateType]]) -> Iterator[tuple[str, str]]:
    before_the_end = [kind for kind in KINDS if kind not in FINAL]
    for left in (None, *before_the_end):
        targets = [to for to in before_the_end if (left, to) in leads]
        ends = [to for to in FINAL if (left, to) in leads]
        for name in [*(to.value for to in targets), *(["Final"] if ends == FINAL else [to.value for to in ends])]:
            yield left.value if left else "[*]", name
    for to in before_the_end:
        sources = [left for left in FINAL if (left, to) in leads]
        for name in ["Final"] if sources == FINAL else [left.value for left in sources]:
            yield name, to.value
    yield from ((left.value, to.value) for left in FINAL for to in FINAL if left is not to and (left, to) in leads)


def _policies() -> list[tuple[str, tuple[Rule[Any], ...]]]:
    """Return the name and the rules of each policy, in source order."""
    named = _documented(policies)
    return [*((name, getattr(policies, name)) for name in named), ("RESUME", run_inputs.RESUME)]


def _policy(name: str, rules: Sequence[Rule[Any]]) -> Iterator[str]:
    yield f"### {name}"
    yield (_documented(policies) | _documented(run_inputs))[name]
    whole = next((other for other, its in _policies() if its and its != rules and its == rules[-len(its) :]), None)
    own = rules[: len(rules) - len(dict(_policies())[whole])] if whole else rules
    if own:
        yield _table(("", "rule", "leaving", "entering", "effect"), _rules(own))
    if whole:
        yield f"The rules of `{whole}` follow."
    if not rules:
        yield "No rules: every proposal is accepted."


def _rules(rules: Sequence[Rule[Any]]) -> Iterator[Sequence[str]]:
    for number, each in enumerate(rules, 1):
        sentence = " ".join((each.__doc__ or "").split())
        yield str(number), f"`{each.name}`", left_in_words(each), entered_in_words(each), sentence


def left_in_words(rule: Rule[Any]) -> str:
    """Return the types that a run leaves when the rule applies, in words; `no state` for its first state."""
    return in_words(rule.leaving, ANY)


def entered_in_words(rule: Rule[Any]) -> str:
    """Return the types that a run enters when the rule applies, in words."""
    return in_words(rule.entering - {None}, ANY - {None})


def in_words(types: frozenset[StateType | None], possible: frozenset[StateType | None]) -> str:
    """Return some of the possible types in words."""
    left_out = possible - types
    if not left_out:
        return "anything"
    if types == FINAL_TYPES:
        return "any final type"
    if types == frozenset(StateType) - FINAL_TYPES:
        return "any type that is not final"
    return f"anything but {_listed(left_out)}" if len(left_out) < len(types) else _listed(types)


def _listed(types: frozenset[StateType | None]) -> str:
    return ", ".join(_kind(kind) for kind in (None, *KINDS) if kind in types)
