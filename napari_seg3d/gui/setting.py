"""What a form must know of a settings field: its name in words, unit, range, choices and help; and errors in words."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

#: The last word of a field's name that is a unit, and how the unit is written.
UNITS = {
    "mm": "mm", "ml": "ml", "voxels": "voxels", "s": "s", "min": "min", "mb": "MB", "gb": "GB", "degrees": "°",
    "percent": "%", "epochs": "epochs", "steps": "steps",
}  # fmt: skip
_EXPECTED = {
    "int_parsing": "Expected a whole number",
    "int_type": "Expected a whole number",
    "int_from_float": "Expected a whole number",
    "float_parsing": "Expected a number",
    "float_type": "Expected a number",
    "too_short": "Expected more values",
    "too_long": "Expected fewer values",
}
#: Numbers with a times sign between them.
_TIMES = r"[\d\s.]+([×xX][\d\s.]+)+"


@dataclass(frozen=True)
class Setting:
    """What a form must know of one field: how it is called, what it may hold and what it is for."""

    name: str
    label: str
    unit: str
    help: str
    annotation: Any
    optional: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def range(self) -> str:
        """The allowed range in words, empty if there is none."""
        unit = f" {self.unit}" if self.unit else ""
        if self.low is not None and self.high is not None:
            return f"from {self.low:g} to {self.high:g}{unit}"
        if self.low is not None:
            return f"at least {self.low:g}{unit}"
        return f"at most {self.high:g}{unit}" if self.high is not None else ""

    @property
    def tooltip(self) -> str:
        """The field's description and its range."""
        return "\n".join(text for text in (self.help, f"Allowed: {self.range}." if self.range else "") if text)


def setting_of(settings: BaseModel, name: str) -> Setting | None:
    """Return what a form must know of a field: its type, title, description, ge and le.

    A dotted name such as ``augmentation.rotation_degrees`` reaches into settings inside settings. None if there is no
    such field, for example a width of stages where the network is a transformer.
    """
    *path, last = name.split(".")
    for part in path:
        settings = getattr(settings, part, settings)
        if settings is None:
            return None
    if last not in type(settings).model_fields:
        return None
    field = type(settings).model_fields[last]
    annotation, low, high = unwrapped(field.annotation, field.metadata)
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [kind for kind in get_args(annotation) if kind is not type(None)]
        optional = len(rest) < len(get_args(annotation))
        annotation, low, high = unwrapped(rest[0], field.metadata) if len(rest) == 1 else (str, low, high)
    choices: tuple[Any, ...] = ()
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        choices = tuple(annotation)
    label, unit = _name_in_words(last, field)
    return Setting(name, label, unit, field.description or "", annotation, optional, low, high, choices)


def unwrapped(annotation: Any, metadata: Iterable[Any]) -> tuple[Any, float | None, float | None]:
    """Take `Annotated` off and return the type with its lower and upper limit."""
    found = list(metadata)
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        found += [part for item in more for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
    return annotation, _limit(found, ("ge", "gt")), _limit(found, ("le", "lt"))


def _limit(metadata: Iterable[Any], keys: Sequence[str]) -> float | None:
    return next((limit for item in metadata for key in keys if (limit := getattr(item, key, None)) is not None), None)


def _name_in_words(name: str, field: FieldInfo) -> tuple[str, str]:
    words = name.split("_")
    unit = UNITS.get(words[-1], "") if len(words) > 1 else ""
    extra = field.json_schema_extra
    if isinstance(extra, Mapping) and isinstance(stated := extra.get("unit"), str):
        unit = stated
    elif unit:
        words = words[:-1]
    label = field.title or " ".join(words)
    return label[:1].upper() + label[1:], unit


def in_words(error: ValidationError, settings: Mapping[str, Setting]) -> dict[str, str]:
    """Return what is wrong by name of the setting, in words; what concerns none of `settings` stands under ``""``."""
    found: dict[str, str] = {}
    for item in error.errors():
        place = [str(part) for part in item["loc"]]
        name = next((name for name in settings if _lies_in(name.split("."), place)), "")
        setting = settings.get(name)
        limits = setting.range if setting else ""
        if item["type"] == "value_error":
            text = _sentence(str(item["ctx"]["error"]))
        elif item["type"] == "literal_error" and setting and setting.choices:
            text = f"Expected one of {', '.join(map(str, setting.choices))}; found {item['input']!r}."
        elif limits and re.match("greater|less", item["type"]):
            text = f"Expected {limits}; found {item['input']}."
        else:
            text = f"{_EXPECTED.get(item['type'], item['msg'])}; found {shown(item['input'])!r}."
        found.setdefault(name, text)
    return found


def _lies_in(parts: Sequence[str], place: Sequence[str]) -> bool:
    """Whether pydantic's `place` of an error (it names the kind of a union, too) is the field or inside it."""
    steps = iter(place)
    return all(part in steps for part in parts) and bool(place) and parts[0] == place[0]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def shown(value: Any) -> str:
    """Write nested numbers as people do: ``(1, 2, 2)`` as ``1×2×2``, ``((1, 2, 2), (2, 2, 2))`` as ``1×2×2, 2×2×2``."""
    if value is None:
        return ""
    if isinstance(value, (tuple, list)):
        return ", ".join("×".join(map(str, item)) if isinstance(item, (tuple, list)) else str(item) for item in value)
    return str(value)


def parsed(text: str, is_text: bool, optional: bool) -> Any:
    """Read what `shown` writes; what is no number stays text, and the settings then say what they expected."""
    text = text.strip()
    if optional and not text:
        return None
    if is_text:
        return text
    groups = [group.strip() for group in text.split(",") if group.strip()]
    return tuple(
        tuple(_number(part) for part in re.split("[×xX]", group)) if re.fullmatch(_TIMES, group) else _number(group)
        for group in groups
    )


def _number(text: str) -> Any:
    # What is no number stays text: the model then says what it expected.
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip()
