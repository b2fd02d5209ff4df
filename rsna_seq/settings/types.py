"""Types of config values with their bounds, and the base class of every config section."""

from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

MAX_LEVEL_HU, MIN_WIDTH_HU, MAX_WIDTH_HU = 32_768.0, 1.0, 65_536.0
"""Bounds of the absolute value of a window's level, and of its width, in HU."""


def _name(value: Any) -> Any:
    """Return the value; refuse text that is empty or contains control characters or lone surrogates."""
    if isinstance(value, str) and (not value or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in value)):
        raise ValueError("must be a name that is not empty and has no control characters")
    return value


def some_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values if there is at least one and no value is repeated.

    Raises:
        ValueError: There is no value, or a value is repeated.
    """
    if not values or len(set(values)) < len(values):
        raise ValueError("must list at least one value, without duplicates")
    return values


Text = Annotated[str, Field(max_length=256), BeforeValidator(_name)]
File = Annotated[Path, BeforeValidator(_name)]
Share = Annotated[float, Field(ge=0, le=1)]
Fold = Annotated[int, Field(ge=0, lt=100)]
Millimetres = Annotated[float, Field(gt=0, le=1000)]
Window = tuple[
    Annotated[float, Field(ge=-MAX_LEVEL_HU, le=MAX_LEVEL_HU)],
    Annotated[float, Field(ge=MIN_WIDTH_HU, le=MAX_WIDTH_HU)],
]


class Section(BaseModel):
    """A section of the config: frozen, without infinite values, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse booleans for numbers, which Python would accept as 0 and 1."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in {kind, *get_args(kind)}:
            raise ValueError("true and false are not valid for this key")
        return value
