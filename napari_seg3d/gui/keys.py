"""All keys of Seg3D in one table: what binds them, what shows them under `?`, what tooltips say.

Free in napari 0.9 on a labels layer are the letters A C D G H I J K N O Q R S T U W Y, Shift with any letter and Alt
with a digit; the others belong to napari. A new action gets a line in `KEYS`, a command of the same name in
napari.yaml, and is bound by `bind_keys` by the part of the window that does it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtCore import QObject, Qt
from qtpy.QtWidgets import QDialog, QLabel, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari import Viewer
    from napari.components import ViewerModel

_Owner = TypeVar("_Owner")


@dataclass(frozen=True)
class Key:
    """One key: as napari writes it ("Shift-N"), the group in which it is shown, and what it does."""

    key: str
    group: str
    what: str

    @property
    def shown(self) -> str:
        """As people write it: "Shift+N"."""
        return self.key.replace("-", "+")


LOOK, STEP, FIX = "Look", "Step through the faults", "Correct"
QUEUE = "Review list"
#: Every action that has a key. Groups are shown in the order in which they come first.
KEYS: Mapping[str, Key] = {
    "axial": Key("Shift-A", LOOK, "Axial plane"),
    "coronal": Key("Shift-C", LOOK, "Coronal plane"),
    "sagittal": Key("Shift-S", LOOK, "Sagittal plane"),
    "contours": Key("C", LOOK, "Labels as contours, or filled"),
    "flash": Key("T", LOOK, "Flash between prediction and truth"),
    "difference": Key("Shift-D", LOOK, "Show the difference, or hide it"),
    "fainter": Key("O", LOOK, "Labels fainter"),
    "stronger": Key("Shift-O", LOOK, "Labels stronger"),
    "all_planes": Key("A", LOOK, "The other two planes below the canvas, or close them"),
    "all_images": Key("U", LOOK, "The other images of the case below the canvas, or close them"),
    "window_level": Key("Shift-K", LOOK, "Window and level by dragging over the image, or no longer"),
    "next_image": Key("I", LOOK, "Next image (modality)"),
    "next_label": Key("W", LOOK, "Next label to paint with"),
    "previous_label": Key("Q", LOOK, "Label before"),
    "next_place": Key("Shift-N", STEP, "Next place"),
    "previous_place": Key("Shift-B", STEP, "Place before"),
    "accept_place": Key("Y", STEP, "Take the truth's or other rater's version of this place; mend an island or hole"),
    "keep_place": Key("K", STEP, "Keep this place as it is in the corrected layer"),
    "check_place": Key("G", STEP, "Mark this place as checked"),
    "uncheck_place": Key("Shift-G", STEP, "Take the last mark back"),
    "ball_brush": Key("Shift-P", FIX, "Ball brush, or lay it down"),
    "threshold_brush": Key("Shift-T", FIX, "Threshold brush, or lay it down"),
    "lasso": Key("Shift-L", FIX, "Lasso, or lay it down"),
    "fill_between": Key("Shift-F", FIX, "Fill between slices; again: apply"),
    "keep_largest": Key("Shift-I", FIX, "Keep the largest part; again: apply"),
    "remove_island": Key("Shift-E", FIX, "Click parts to remove"),
    "fill_holes": Key("Shift-H", FIX, "Fill holes; again: apply"),
    "smooth": Key("Shift-M", FIX, "Smooth; again: apply"),
    "grow_from_seeds": Key("Shift-W", FIX, "Grow from seeds; again: apply"),
    "apply_tool": Key("Shift-Y", FIX, "Apply what the preview shows"),
    "cancel_tool": Key("Shift-X", FIX, "Cancel the preview"),
    "check_slice": Key("S", QUEUE, "Mark the shown slice as checked, or not"),
    "save_check_next": Key("Shift-R", QUEUE, "Save, mark the case as checked, open the next one"),
    "learn": Key("Shift-J", QUEUE, "Learn from corrections"),
}
#: Further actions of the Review page for the command palette; those that are seldom wanted twice have no key.
PALETTE: Mapping[str, str] = {
    "keep_clicked": "Click the only part to keep",
    "remove_smaller": "Remove parts below a volume",
    "grow": "Grow the active label",
    "shrink": "Shrink the active label",
    "scribble_label": "Scribble where the active label is",
    "scribble_outside": "Scribble where none of the labels is",
    "clear_scribbles": "Take all scribbles away",
    "split_by_line": "Split the active label by a line",
    "split_by_scribbles": "Split the active label by scribbles",
    "relabel": "Relabel all of the active label",
    "relabel_clicked": "Click parts to relabel",
    "add_label": "Add another label to the active one",
    "keep_both": "Keep what lies in both labels",
    "take_away": "Take another label away from the active one",
    "copy_clicked": "Click a part of another layer to copy it",
    "edit_copy": "Edit a copy of the truth",
    "save_correction": "Save the correction",
    "save_as": "Save labels as…",
    "figures": "Figures of what is compared",
    "consensus": "Begin a consensus of two raters",
    "raters_table": "Agreement of raters on all cases",
}
#: The key that shows the keys. napari cannot bind it: Qt does.
HELP = "?"


def with_key(tooltip: str, action: str) -> str:
    """Return a tooltip with the action's key behind it."""
    return f"{tooltip} ({KEYS[action].shown})"


def bind_keys(
    viewer: Viewer | ViewerModel, owner: _Owner, actions: Mapping[str, Callable[[_Owner], object]]
) -> Callable[..., None]:
    """Bind actions of `KEYS` on one viewer, without keeping what does them alive.

    Parameters
    ----------
    viewer : napari.Viewer
    owner : object
        What does them; handed to each action. If it is a QObject, the keys are free again when Qt deletes it.
    actions : dict of str to callable
        Name in `KEYS` -> what is called with the owner.

    Returns
    -------
    callable
        Frees the keys that are still bound to this owner.
    """
    this = weakref.ref(owner)
    bound: dict[str, Callable[..., None]] = {}
    for name, action in actions.items():

        def act(_viewer: Any, action: Callable[[_Owner], object] = action) -> None:
            one = this()
            if one is not None:
                action(one)

        bound[KEYS[name].key] = act
        viewer.bind_key(KEYS[name].key, act, overwrite=True)
    free = partial(_free, weakref.ref(viewer), bound)
    if isinstance(owner, QObject):
        owner.destroyed.connect(free)
    return free


def _free(viewer: weakref.ref[Any], bound: Mapping[str, Callable[..., None]], *_: object) -> None:
    keymap = getattr(viewer(), "keymap", {})
    for key, act in bound.items():
        # A page that was opened later may have bound the key anew.
        if keymap.get(coerce_keybinding(key)) is act:
            del keymap[coerce_keybinding(key)]


def perform(viewer: Viewer | ViewerModel, action: str) -> bool:
    """Do what the key of an action does; tell whether anything is bound to it."""
    act = viewer.keymap.get(coerce_keybinding(KEYS[action].key))
    if act is None:
        return False
    act(viewer)
    return True


class KeyMapWindow(QDialog):
    """Shows all keys, by group."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keys of Seg3D")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        text = QLabel(key_table())
        text.setTextFormat(Qt.TextFormat.RichText)
        text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 12, 16, 14)
        layout.addWidget(text)


def key_table() -> str:
    """Return all keys as rich text, group by group, in two columns."""
    groups: dict[str, list[Key]] = {}
    for key in KEYS.values():
        groups.setdefault(key.group, []).append(key)
    parts = []
    for group, keys in groups.items():
        rows = "".join(
            f'<tr><td style="padding-right: 14px"><b>{escape(key.shown)}</b></td><td>{escape(key.what)}</td></tr>'
            for key in keys
        )
        parts.append(f'<p style="margin: 8px 0px 2px 0px"><i>{escape(group)}</i></p><table>{rows}</table>')
    napari = (
        "napari's own on a labels layer: 1 or E erase, 2 or P paint, 3 polygon, 4 or F fill, 5 or L pick, M new label, "
        "[ ] brush size, Ctrl+Z undo, arrows slices, V hide."
    )
    half = (len(parts) + 1) // 2 if len(KEYS) > 24 else len(parts)
    columns = "".join(
        f'<td style="padding-right: 24px" valign="top">{"".join(column)}</td>'
        for column in (parts[:half], parts[half:])
        if column
    )
    return f'<table><tr>{columns}</tr></table><p style="margin-top: 10px">{escape(napari)}</p>'
