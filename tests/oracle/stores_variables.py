"""Operations on variables."""

from typing import Any

from tests.oracle.stores import Answer, Step, Stores, operation

VARIABLE = "name value tags"
MEMBERS = ("name", "value", "tags")


def _given(step: Step) -> Answer:
    return {key: step[key] for key in MEMBERS if key in step}


def _reference(play: Stores, step: Step, name: str) -> Answer:
    return {"by": {"id": play.id(step["variable"])} if "variable" in step else {"name": step[name]}}


@operation
async def variable(play: Stores, step: Step) -> Answer:
    """Create a variable."""
    made = await play.make(step, "Variable", VARIABLE, _given(step))
    return {"ok": True, **{key: made[key] for key in MEMBERS}}


@operation
async def read_variable(play: Stores, step: Step) -> Answer:
    """Read a variable."""
    document = f"query($by: VariableRef!) {{ it: variable(by: $by) {{ {VARIABLE} }} }}"
    return {"variable": await play.ask(document, **_reference(play, step, "name"))}


@operation
async def update_variable(play: Stores, step: Step) -> Answer:
    """Update a variable."""
    await play.mutate("updateVariable", "variable { id }", {**_reference(play, step, "by_name"), **_given(step)})
    return {"ok": True}


@operation
async def delete_variable(play: Stores, step: Step) -> Answer:
    """Delete a variable."""
    await play.delete("Variable", play.id(step["variable"]))
    return {"ok": True}


@operation
async def variables(play: Stores, step: Step) -> Answer:
    """List variables."""
    wanted: dict[str, Any] = step["where"]
    where: list[Any] = []
    for key, member, how in (
        ("names", "name", "in"),
        ("like", "name", "contains"),
        ("tags", "tags", "all"),
        ("no_tags", "tags", "isEmpty"),
    ):
        if key in wanted:
            where.append({member: {how: wanted[key]}})
    if "ids" in wanted:
        where.append({"id": {"in": list(map(play.id, wanted["ids"]))}})
    pages, count = await play.pages("variables", "Variable", "name", where, order=step.get("order", "NAME_ASC"))
    return {"variables": [each["name"] for page in pages for each in page], "count": count}
