"""Boxes in which a person changes one value: numbers, choices, several numbers in a row, ticks, text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from .setting import Setting, parsed, shown, unwrapped

_INTEGER_LIMIT = 2**31 - 1


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
    numbers = [unwrapped(part, ()) for part in parts]
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
        lambda: parsed(line.text(), is_text, setting.optional),
        lambda value: line.setText(shown(value)),
        line.editingFinished,
    )
