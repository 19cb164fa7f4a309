"""Lines of logs, as programs send them. Each line is validated for itself, by the command that writes it."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from runstate.documents.base import Document
from runstate.errors import Id

MOST_LINES = 1_000


class LogLine(Document):
    """A line of a log. Its runs need not exist yet."""

    flow_run_id: Id | None = Field(default=None, description="Id of the flow run.")
    level: int = Field(description="Severity, from -32768 to 32767: 10 debug, 20 info, 30 warning, 40 error.")
    logger: str = Field(description="Name of the logger, at most 1,024 characters.")
    message: str = Field(
        description="Text of the line. It is cut off after 100,000 characters; NUL characters are removed."
    )
    task_run_id: Id | None = Field(default=None, description="Id of the task run.")
    timestamp: datetime = Field(description="Time of the line, by the clock of the program.")
    worker_id: Id | None = Field(default=None, description="Id of the worker that wrote the line.")


class WriteLogs(Document):
    """Lines of one program or several."""

    logs: Annotated[list[LogLine], Field(min_length=1, max_length=MOST_LINES)] = Field(
        description="The lines, from 1 to 1,000, in the order in which they were logged."
    )
