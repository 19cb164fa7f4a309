"""What every document has in common."""

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """A value without identity: frozen, and strict about the keys it knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")
