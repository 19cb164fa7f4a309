"""Operations on logs."""

from datetime import datetime
from typing import Any

from tests.oracle.stores import Answer, RefusedError, Step, Stores, operation

LINE = "level logger message timestamp flowRunId taskRunId"
MEMBERS = {"name": "logger", "flow_run_id": "flowRunId", "task_run_id": "taskRunId"}
CONDITIONS = {
    "level_ge": ("level", "gte"),
    "level_le": ("level", "lte"),
    "after": ("timestamp", "gte"),
    "before": ("timestamp", "lte"),
}


@operation
async def write_logs(play: Stores, step: Step) -> Answer:
    """Write lines."""
    given = {"logs": [_line(play, line) for line in step["logs"]]}
    payload = await play.mutate("writeLogs", "written refused { path }", given)
    if payload["refused"] and not payload["written"]:
        raise RefusedError("refused", tuple(payload["refused"][0]["path"]))
    return {"written": payload["written"]}


def _line(play: Stores, line: Step) -> Answer:
    if "raw" in line:
        given = {MEMBERS.get(key, key): value for key, value in line["raw"].items()}
    else:
        given = {key: line[key] for key in ("logger", "level", "message")} | {"timestamp": line["at"]}
    named = {"run": "flowRunId", "task": "taskRunId"}
    return given | {member: play.id(line[key]) for key, member in named.items() if key in line}


def _where(play: Stores, wanted: Step) -> list[Any]:
    runs = {"run": "flowRunId", "task": "taskRunId"}
    where: list[Any] = [
        {member: {"in": list(map(play.id, wanted[key]))}} for key, member in runs.items() if key in wanted
    ]
    if "task_null" in wanted:
        where.append({"taskRunId": {"isNull": wanted["task_null"]}})
    where += [{member: {how: wanted[key]}} for key, (member, how) in CONDITIONS.items() if key in wanted]
    if "text" in wanted:
        where.append({"search": wanted["text"]})
    return where


@operation
async def logs(play: Stores, step: Step) -> Answer:
    """List lines."""
    order = f"timestamp_{step.get('order', 'asc').upper()}"
    pages, _ = await play.pages("logs", "Log", LINE, _where(play, step["where"]), order=order)
    lines = [line for page in pages for line in page]
    if not step.get("full"):
        return {"messages": [line["message"] for line in lines]}
    return {"logs": [_recorded(play, line) for line in lines]}


def _recorded(play: Stores, line: Answer) -> Answer:
    at = datetime.fromisoformat(line["timestamp"])
    # The recording has fractions only where there are any.
    text = at.isoformat().replace("+00:00", "Z")
    names = {"run": play.name(line["flowRunId"]), "task": play.name(line["taskRunId"])}
    return {"level": line["level"], "logger": line["logger"], "message": line["message"], "at": text, **names}


@operation
async def page_logs(play: Stores, step: Step) -> Answer:
    """List lines page by page."""
    order = f"timestamp_{step.get('order', 'asc').upper()}"
    pages, _ = await play.pages("logs", "Log", LINE, _where(play, step["where"]), order=order, size=step["size"])
    return {"pages": [[line["message"] for line in page] for page in pages]}
