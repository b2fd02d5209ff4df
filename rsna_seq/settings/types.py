"""What the values of a config may be: types with bounds, and the base class of every section."""

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
"""Bounds of a window's level (either sign) and width, in HU."""


def _name(value: Any) -> Any:
    """The value; text is refused that is empty, or holds control characters or halves of characters."""
    if isinstance(value, str) and (not value or any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in value)):
        raise ValueError("should be a name, not empty and without control characters")
    return value


def some_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values, where there is at least one, and none stands twice.

    Raises:
        ValueError: There is none, or one stands twice.
    """
    if not values or len(set(values)) < len(values):
        raise ValueError("should name at least one value, and each once")
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
    """A part of the config: frozen, finite, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """``yes`` is no number, though Python takes it for 1."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in {kind, *get_args(kind)}:
            raise ValueError("true and false are no value of this key")
        return value
