"""What every table of the configuration file is made of: documented keys, strict types.

A key's description and example are the documentation page's text and the cure of a refusal, so they stand once.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

PathText = Annotated[str, Field(min_length=1)]


def default_of(settings: type, name: str) -> Any:
    """The default that the settings class itself states, so that it is written once."""
    return settings.__dataclass_fields__[name].default  # type: ignore[attr-defined]


def documented(description: str, example: str, **constraints: Any) -> Any:
    """A documented key; `example` is TOML text. Without `default` the key is required."""
    return Field(constraints.pop("default", ...), description=description, examples=[example], **constraints)


def read_by(reader: Any) -> BeforeValidator:
    """What turns the text of a key into its value."""
    return BeforeValidator(reader)


class Table(BaseModel):
    """A table of the file: no unknown keys, no guessing of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)
