"""Labels of resources: patterns of their values, and references to them."""

from typing import Annotated

from pydantic import Field

from runstate.documents.base import Document, Text

Label = Annotated[Text, Field(min_length=1, max_length=1024)]
Pattern = Annotated[Text, Field(max_length=1024)]


class LabelPattern(Document):
    """A label and the patterns of its value, of which one must match. A resource without the label does not match."""

    label: Label = Field(
        description="Name of the label; `resource.id`, `resource.role` and `resource.name` are labels, too."
    )
    values: Annotated[list[Pattern], Field(max_length=100)] = Field(
        description="Patterns: `*` is any text, `?` one character, `[ab]` one of these characters; a leading `!` "
        "negates the pattern. Patterns are case-sensitive. An empty list matches nothing."
    )


class LabelRef(Document):
    """A label of a resource of the event."""

    label: Label = Field(description="Name of the label, such as `resource.id`.")
    role: Text | None = Field(
        default=None, description="Role: the first related resource in it has the label; null for the resource itself."
    )


class LabelValue(LabelRef):
    """The value of a label."""

    value: Text = Field(description="Value of the label; empty if the label is missing.")


LabelPatterns = Annotated[list[LabelPattern], Field(max_length=100)]
"""Patterns of labels, all of which must match."""
RelatedPatterns = Annotated[list[LabelPatterns], Field(max_length=100)]
"""For each item, one related resource must match."""
