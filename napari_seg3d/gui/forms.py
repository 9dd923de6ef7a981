"""A settings model (pydantic) as a compact form: units, tooltips, ranges and errors come from its fields.

The form knows two things per field: what the settings are without the user (the base, for example what a planner chose)
and what the user changed. Only the changes leave the form, so a new base moves every field that was left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from .editors import Editor, WheelGuard, editor_for
from .setting import Setting, in_words, setting_of, shown


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
        grid.setColumnStretch(0, 4)
        grid.setColumnStretch(1, 7)
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
                line.undo.setToolTip(f"Back to the planned value: {shown(planned) or 'none'}")
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
