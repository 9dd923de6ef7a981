"""One table of keys: none twice, none of napari's own, each with a command in the palette."""

from __future__ import annotations

import gc
from html import escape
from pathlib import Path

import yaml
from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils.action_manager import action_manager
from napari.utils.key_bindings import coerce_keybinding
from napari.utils.shortcuts import default_shortcuts

import napari_seg3d
from napari_seg3d.gui.keys import KEYS, PALETTE, bind_keys, key_table, perform


class Owner:
    def __init__(self) -> None:
        self.did: list[str] = []


def test_no_key_is_given_twice_or_taken_from_napari():
    keys = [coerce_keybinding(key.key) for key in KEYS.values()]
    assert len({str(key) for key in keys}) == len(keys)
    taken = {str(key) for key in (*Labels.class_keymap, *ViewerModel.class_keymap)}
    for name, action in action_manager._actions.items():
        if action.keymapprovider in (Labels, ViewerModel):
            taken |= {str(key) for key in default_shortcuts.get(name, ())}
    assert {"P", "Ctrl+R"} <= taken
    assert not {str(key) for key in keys} & taken
    assert all(escape(key.what) in key_table() for key in KEYS.values())


def test_every_key_has_a_command_of_its_name():
    manifest = yaml.safe_load(Path(napari_seg3d.__file__).with_name("napari.yaml").read_text("utf-8"))
    commands = {
        command["id"].removeprefix("napari-seg3d."): command
        for command in manifest["contributions"]["commands"]
        if ".commands:" in command["python_name"]
    }
    assert list(commands) == ["show_keys", *KEYS, *PALETTE]
    for name, what in PALETTE.items():
        assert commands[name]["title"] == f"Seg3D: {what}"
        assert commands[name]["python_name"].endswith(f":{name}")
    for name, key in KEYS.items():
        assert commands[name]["title"] == f"Seg3D: {key.what}"
        assert commands[name]["python_name"].endswith(f":{name}")


def test_keys_work_as_long_as_what_does_them_lives(qapp):
    viewer, first, second = ViewerModel(), Owner(), Owner()
    actions = {name: (lambda owner, name=name: owner.did.append(name)) for name in ("next_place", "contours")}
    free = bind_keys(viewer, first, actions)
    assert perform(viewer, "contours")
    assert first.did == ["contours"]
    assert not perform(viewer, "flash")
    # The page that was opened last has the keys; closing the other does not take them away.
    bind_keys(viewer, second, actions)
    free()
    perform(viewer, "next_place")
    assert (first.did, second.did) == (["contours"], ["next_place"])
    del second
    gc.collect()
    assert perform(viewer, "next_place")
