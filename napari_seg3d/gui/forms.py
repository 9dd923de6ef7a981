"""A settings model (pydantic) as a compact form: units, tooltips, ranges and errors come from its fields.

The form knows two things per field: what the settings are without the user (the base, for example what a planner chose)
and what the user changed. Only the changes leave the form, so a new base moves every field that was left alone.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

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
_INTEGER_LIMIT = 2**31 - 1


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
    if last not in type(settings).model_fields:
        return None
    field = type(settings).model_fields[last]
    annotation, low, high = _unwrapped(field.annotation, field.metadata)
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [kind for kind in get_args(annotation) if kind is not type(None)]
        optional = len(rest) < len(get_args(annotation))
        annotation, low, high = _unwrapped(rest[0], field.metadata) if len(rest) == 1 else (str, low, high)
    choices: tuple[Any, ...] = ()
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        choices = tuple(annotation)
    label, unit = _name_in_words(last, field)
    return Setting(name, label, unit, field.description or "", annotation, optional, low, high, choices)


def _unwrapped(annotation: Any, metadata: Iterable[Any]) -> tuple[Any, float | None, float | None]:
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
            text = f"{_EXPECTED.get(item['type'], item['msg'])}; found {_shown(item['input'])!r}."
        found.setdefault(name, text)
    return found


def _lies_in(parts: Sequence[str], place: Sequence[str]) -> bool:
    """Whether pydantic's `place` of an error (it names the kind of a union, too) is the field or inside it."""
    steps = iter(place)
    return all(part in steps for part in parts) and bool(place) and parts[0] == place[0]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


@dataclass(frozen=True)
class Editor:
    """A widget that shows and takes one value. `edited` is a bound Qt signal that fires when the user changes it."""

    widget: QWidget
    read: Callable[[], Any]
    write: Callable[[Any], None]
    edited: Any


class NumberBox(QDoubleSpinBox):
    """A box for real numbers of any size: shows 0.0003 as ``0.0003`` and 1e-07 as ``1e-07``, steps by a tenth."""

    def __init__(self) -> None:
        super().__init__()
        self.setDecimals(12)
        self.setRange(-1e12, 1e12)
        self.setStepType(QAbstractSpinBox.StepType.AdaptiveDecimalStepType)
        self.setKeyboardTracking(False)

    def textFromValue(self, value: float) -> str:  # noqa: N802 (Qt's name)
        """Return the shortest text of the number."""
        return f"{value:.6g}"

    def valueFromText(self, text: str) -> float:  # noqa: N802 (Qt's name)
        """Return the number that the text stands for."""
        try:
            return float(text.replace(",", "."))
        except ValueError:
            return float(self.value())

    def validate(self, text: str, position: int) -> tuple[QValidator.State, str, int]:
        """Accept what is a number in range, let pass what may become one."""
        try:
            inside = self.minimum() <= float(text.replace(",", ".")) <= self.maximum()
        except ValueError:
            unfinished = re.fullmatch(r"[-+]?\d*[.,]?\d*(e[-+]?\d*)?", text, re.IGNORECASE)
            return (QValidator.State.Intermediate if unfinished else QValidator.State.Invalid), text, position
        return (QValidator.State.Acceptable if inside else QValidator.State.Intermediate), text, position


class WheelGuard(QObject):
    """Keeps the mouse wheel for scrolling the page: a box changes by wheel only after it was clicked."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 (Qt's name)
        """Pass wheel events of unfocused boxes on to the page."""
        is_wheel = event.type() == QEvent.Type.Wheel
        if is_wheel and isinstance(watched, QWidget) and not watched.hasFocus():
            event.ignore()
            return True
        return False

    def watch(self, parent: QWidget) -> None:
        """Guard every box under `parent`."""
        for kind in (QAbstractSpinBox, QComboBox):
            for box in parent.findChildren(kind):
                box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                box.installEventFilter(self)


def combo(tooltip: str) -> QComboBox:
    """Return a combo box that fits a narrow dock, however long its entries are."""
    box = QComboBox()
    box.setToolTip(tooltip)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(6)
    return box


def editor_for(setting: Setting) -> Editor:
    """Return the widget that suits the setting's type."""
    kind = setting.annotation
    if setting.choices:
        return _choice_editor(setting)
    if kind is bool:
        box = QCheckBox()
        return Editor(box, box.isChecked, lambda value: box.setChecked(bool(value)), box.toggled)
    if kind in (int, float):
        return _number_editor(setting)
    parts = get_args(kind)
    if get_origin(kind) is tuple and len(parts) == 2 and parts[1] is Ellipsis and get_origin(parts[0]) is Literal:
        return _several_editor(get_args(parts[0]))
    numbers = [_unwrapped(part, ()) for part in parts]
    if get_origin(kind) is tuple and Ellipsis not in parts and all(part[0] in (int, float) for part in numbers):
        each = [
            Setting(setting.name, setting.label, setting.unit, "", part, False,
                    setting.low if low is None else low, setting.high if high is None else high)
            for part, low, high in numbers
        ]  # fmt: skip
        if not setting.optional:
            return _row_editor(each)
    return _text_editor(setting)


def _choice_editor(setting: Setting) -> Editor:
    box = combo(setting.tooltip)
    choices = ((None,) if setting.optional else ()) + setting.choices
    for choice in choices:
        shown = choice.value if isinstance(choice, Enum) else choice
        box.addItem("none" if choice is None else str(shown).replace("_", " "))
    return Editor(
        box, lambda: choices[box.currentIndex()], lambda value: box.setCurrentIndex(choices.index(value)), box.activated
    )


def _several_editor(choices: Sequence[Any]) -> Editor:
    column = _Row()
    layout = QVBoxLayout(column)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(0)
    boxes = {choice: QCheckBox(str(choice)) for choice in choices}
    for box in boxes.values():
        layout.addWidget(box)
        box.toggled.connect(column.edited)

    def write(chosen: Iterable[Any]) -> None:
        chosen = tuple(chosen)
        for choice, box in boxes.items():
            box.setChecked(choice in chosen)

    return Editor(
        column, lambda: tuple(choice for choice, box in boxes.items() if box.isChecked()), write, column.edited
    )


def _number_editor(setting: Setting) -> Editor:
    whole = setting.annotation is int
    box: Any = QSpinBox() if whole else NumberBox()
    limit = _INTEGER_LIMIT if whole else 1e12
    low = -limit if setting.low is None else max(setting.low, -limit)
    box.setRange(low, limit if setting.high is None else min(setting.high, limit))
    box.setKeyboardTracking(False)
    if not setting.optional:
        return Editor(box, box.value, box.setValue, box.valueChanged)
    # The lowest step of an optional number stands for "none", as Qt's special value.
    none = low - 1
    box.setMinimum(none)
    box.setSpecialValueText("none")
    return Editor(
        box,
        lambda: None if box.value() == none else box.value(),
        lambda value: box.setValue(none if value is None else value),
        box.valueChanged,
    )


class _Row(QWidget):
    edited = Signal()


def _row_editor(settings: Sequence[Setting]) -> Editor:
    row = _Row()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(3)
    editors = [_number_editor(setting) for setting in settings]
    for index, editor in enumerate(editors):
        if index:
            layout.addWidget(QLabel("×"))
        box = editor.widget
        if isinstance(box, QAbstractSpinBox):
            box.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
        box.setMinimumWidth(36)
        box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        layout.addWidget(box, 1)
        editor.edited.connect(row.edited)

    def write(values: Iterable[Any]) -> None:
        for editor, value in zip(editors, values, strict=True):
            editor.write(value)

    return Editor(row, lambda: tuple(editor.read() for editor in editors), write, row.edited)


def _text_editor(setting: Setting) -> Editor:
    line = QLineEdit()
    line.setMinimumWidth(60)
    line.setPlaceholderText("none" if setting.optional else "")
    is_text = setting.annotation is str
    return Editor(
        line,
        lambda: _parsed(line.text(), is_text, setting.optional),
        lambda value: line.setText(_shown(value)),
        line.editingFinished,
    )


def _shown(value: Any) -> str:
    """Write nested numbers as people do: ``(1, 2, 2)`` as ``1×2×2``, ``((1, 2, 2), (2, 2, 2))`` as ``1×2×2, 2×2×2``."""
    if value is None:
        return ""
    if isinstance(value, (tuple, list)):
        return ", ".join("×".join(map(str, item)) if isinstance(item, (tuple, list)) else str(item) for item in value)
    return str(value)


def _parsed(text: str, is_text: bool, optional: bool) -> Any:
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


@dataclass(frozen=True)
class _Line:
    setting: Setting
    editor: Editor
    label: QLabel
    undo: QToolButton
    problem: QLabel


class SettingsForm(QWidget):
    """Fields of a pydantic model as rows of label, box and a button back to the base value.

    Parameters
    ----------
    sections : mapping of str to sequence of str
        Heading -> names of fields in the order in which they are shown; dotted names reach inside. Fields that the
        settings at hand do not have are left out.
    judged_elsewhere : collection of str
        Fields that cannot be changed alone, so that only the maker of the settings can tell whether a change fits.
    """

    #: The user changed something; `changes()` and `problem` are up to date.
    changed = Signal()

    def __init__(
        self,
        sections: Mapping[str, Sequence[str]],
        judged_elsewhere: Collection[str] = (),
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._sections = sections
        self._judged_elsewhere = frozenset(judged_elsewhere)
        self._base: BaseModel | None = None
        self._changes: dict[str, Any] = {}
        self._lines: dict[str, _Line] = {}
        self._writing = False
        self._problems: dict[str, str] = {}
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._rows: QWidget | None = None
        self._general = _problem_label()
        self._layout.addWidget(self._general)
        self._guard = WheelGuard(self)

    def show_base(self, base: BaseModel) -> None:
        """Show the values of `base` wherever the user changed nothing."""
        self._base = base
        settings = {name: setting_of(base, name) for names in self._sections.values() for name in names}
        known = {name: setting for name, setting in settings.items() if setting is not None}
        if known != {name: line.setting for name, line in self._lines.items()}:
            self._build(known)
        self._changes = {name: v for name, v in self._changes.items() if name in known and v != _get(base, name)}
        self._refresh()

    def changes(self) -> dict[str, Any]:
        """Return what the user changed, by field name; values equal to the base are no change."""
        return dict(self._changes)

    def set_changes(self, changes: Mapping[str, Any]) -> None:
        """Take changes over, for example remembered ones; names that the form does not show are left out."""
        names = {name for names in self._sections.values() for name in names}
        self._changes = {name: value for name, value in changes.items() if name in names}
        self._refresh()

    @property
    def problem(self) -> str:
        """What is wrong with the settings, in words; empty if nothing."""
        return "\n".join(
            f"{self._lines[name].setting.label}: {text}" if name else text for name, text in self._problems.items()
        )

    def _build(self, settings: Mapping[str, Setting]) -> None:
        if self._rows is not None:
            self._layout.removeWidget(self._rows)
            self._rows.deleteLater()
        self._rows = QWidget()
        self._layout.insertWidget(0, self._rows)
        self._lines = {}
        grid = QGridLayout(self._rows)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(0, 5)
        grid.setColumnStretch(1, 6)
        for heading, names in self._sections.items():
            shown = [name for name in names if name in settings]
            if heading and shown:
                title = QLabel(f"<b>{heading}</b>")
                title.setContentsMargins(0, 6 if self._lines else 0, 0, 0)
                grid.addWidget(title, grid.rowCount(), 0, 1, 3)
            for name in shown:
                self._lines[name] = self._line(settings[name], grid)
        self._guard.watch(self._rows)

    def _line(self, setting: Setting, grid: QGridLayout) -> _Line:
        editor = editor_for(setting)
        label = QLabel(f"{setting.label} ({setting.unit})" if setting.unit else setting.label)
        label.setWordWrap(True)
        label.setMinimumWidth(90)
        label.setBuddy(editor.widget)
        undo = QToolButton()
        undo.setText("↺")
        undo.setAutoRaise(True)
        undo.setAccessibleName(f"Reset {setting.label}")
        policy = undo.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        undo.setSizePolicy(policy)
        undo.setVisible(False)
        for widget in (label, editor.widget):
            widget.setToolTip(setting.tooltip)
        editor.widget.setAccessibleName(setting.label)
        # napari's boxes ask for more than half of a narrow dock; here the grid decides.
        editor.widget.setMinimumWidth(100)
        editor.widget.setSizePolicy(QSizePolicy.Policy.Ignored, editor.widget.sizePolicy().verticalPolicy())
        problem = _problem_label()
        row = grid.rowCount()
        grid.addWidget(label, row, 0)
        grid.addWidget(editor.widget, row, 1)
        grid.addWidget(undo, row, 2)
        grid.addWidget(problem, row + 1, 0, 1, 3)
        editor.edited.connect(lambda *_: self._edited(setting.name))
        undo.clicked.connect(lambda *_: self._undo(setting.name))
        return _Line(setting, editor, label, undo, problem)

    def _check(self) -> dict[str, str]:
        if self._base is None:
            return {}
        values = self._base.model_dump()
        for name, value in self._changes.items():
            if name in self._judged_elsewhere:
                continue
            *path, last = name.split(".")
            place = values
            for part in path:
                place = place[part]
            place[last] = value
        try:
            type(self._base).model_validate(values)
        except ValidationError as error:
            return in_words(error, {name: line.setting for name, line in self._lines.items()})
        return {}

    def _edited(self, name: str) -> None:
        if self._writing or self._base is None:
            return
        value, before = self._lines[name].editor.read(), dict(self._changes)
        self._changes[name] = value
        if value == _get(self._base, name):
            del self._changes[name]
        if self._changes != before:
            self._refresh()
            self.changed.emit()

    def _undo(self, name: str) -> None:
        if self._changes.pop(name, None) is not None:
            self._refresh()
            self.changed.emit()

    def _refresh(self) -> None:
        if self._base is None:
            return
        self._problems = self._check()
        self._writing = True
        try:
            for name, line in self._lines.items():
                planned = _get(self._base, name)
                changed = name in self._changes
                line.editor.write(self._changes.get(name, planned))
                font = line.label.font()
                font.setBold(changed)
                line.label.setFont(font)
                line.undo.setVisible(changed)
                line.undo.setToolTip(f"Back to the planned value: {_shown(planned) or 'none'}")
                _say(line.problem, self._problems.get(name, ""))
        finally:
            self._writing = False
        _say(self._general, self._problems.get("", ""))


def _get(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def _problem_label() -> QLabel:
    label = QLabel()
    label.setObjectName("problem")
    label.setWordWrap(True)
    label.setVisible(False)
    return label


def _say(label: QLabel, text: str) -> None:
    label.setText(text and f"⚠ {text}")
    label.setVisible(bool(text))
