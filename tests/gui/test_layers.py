"""What the screen shows, and back: axes, millimetres, colours, and not one voxel or byte that nobody painted."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels
from numpy.typing import NDArray

from napari_seg3d.comparison.difference import DIFFERENCE_TABLE, difference_map
from napari_seg3d.errors import GeometryError, LabelError
from napari_seg3d.gui.layers import (
    adopt,
    difference_layer,
    display_range,
    geometry_on_screen,
    image_layer,
    label_map_of,
    labels_arguments,
    on_screen,
    origin_of,
    placement,
    prediction_layer,
    snapshot,
    stored,
    truth_layer,
    voxel_on_screen,
)
from napari_seg3d.volumes.files import read_label_map, write_label_map
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume

SHAPE = (5, 7, 4)
SPACING = (1.0, 1.2, 2.5)
ALL_CODES = [
    "".join(pair[up] for pair, up in zip(axes, ups, strict=True))
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for ups in itertools.product((0, 1), repeat=3)
]
WORLD = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def grid(codes: str, degrees: float = 0.0) -> Geometry:
    angle = np.deg2rad(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([WORLD[code] for code in codes], float).T @ np.diag(SPACING)
    affine[:3, 3] = (-12.5, 30.25, 7.0)
    return Geometry(SHAPE, affine)


@pytest.mark.parametrize("codes", ALL_CODES)
def test_every_orientation_is_shown_as_radiologists_read_it_and_comes_back(codes: str) -> None:
    geometry = grid(codes, degrees=17)
    data = np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE)
    shown = on_screen(data, geometry)
    assert np.shares_memory(shown, data)
    assert np.array_equal(stored(shown, geometry), data)
    # Slices go down the body, rows to the back, columns to the patient's left: looked up voxel by voxel.
    places = np.stack([geometry.world(voxel) for voxel in np.ndindex(SHAPE)]).reshape(*SHAPE, 3)
    right, anterior, superior = (on_screen(np.ascontiguousarray(places[..., axis]), geometry) for axis in range(3))
    assert (np.diff(superior, axis=0) < 0).all()
    assert (np.diff(anterior, axis=1) < 0).all()
    assert (np.diff(right, axis=2) < 0).all()


@pytest.mark.parametrize("codes", ALL_CODES)
def test_the_layer_lies_at_its_millimetres(codes: str) -> None:
    geometry = grid(codes)
    layer = prediction_layer(LabelMap(np.zeros(SHAPE, np.uint8), geometry))
    assert layer.axis_labels == ("I", "P", "L")
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    for voxel in np.ndindex(SHAPE):
        right, anterior, superior = geometry.world(voxel)
        assert layer.data_to_world(voxel_on_screen(voxel, geometry)) == pytest.approx((-superior, -anterior, -right))


def test_an_oblique_layer_keeps_its_spacing_and_the_place_of_its_centre() -> None:
    geometry = grid("LPS", degrees=17)
    where = placement(geometry)
    assert where["scale"] == pytest.approx((2.5, 1.2, 1.0))
    centre = np.asarray(where["translate"]) + np.asarray(where["scale"]) * (np.array((4, 7, 5)) - 1) / 2
    right, anterior, superior = geometry.world((np.array(SHAPE) - 1) / 2)
    assert centre == pytest.approx((-superior, -anterior, -right))


def test_a_layer_that_others_made_gets_the_place_it_is_shown_at() -> None:
    geometry = grid("PIR")
    where = placement(geometry)
    shown = geometry_on_screen((7, 4, 5), where["scale"], where["translate"])
    assert shown.orientation == "IPL"
    for voxel in np.ndindex(SHAPE):
        assert shown.world(voxel_on_screen(voxel, geometry)) == pytest.approx(geometry.world(voxel))


def test_names_and_colours_are_those_of_the_table() -> None:
    data = np.zeros(SHAPE, np.uint8)
    data[1, 2, 3], data[0, 0, 0] = 2, 9
    table = LabelTable.from_names({1: "oedema", 2: "enhancing"})
    label_map = LabelMap(data, grid("RAS"), table)
    layers = [truth_layer(label_map), prediction_layer(label_map)]
    for layer in layers:
        assert list(layer.features["name"]) == ["background", "oedema", "enhancing", "label 9"]
        for label in table:
            assert np.asarray(layer.colormap.map(label.value)).ravel()[:3] == pytest.approx(label.rgb, abs=0.01)
        assert np.asarray(layer.colormap.map(0)).ravel()[3] == 0
        assert np.asarray(layer.colormap.map(200)).ravel()[3] == 1
    truth, prediction = layers
    assert not truth.editable
    assert truth.locked
    assert prediction.editable
    assert not np.shares_memory(prediction.data, data)
    assert prediction.selected_label == 1


def test_the_difference_has_the_colours_of_its_own_table() -> None:
    truth = np.zeros(SHAPE, np.uint8)
    truth[1:3] = 1
    layer = difference_layer(difference_map(np.roll(truth, 1, 0), truth), grid("LPS"))
    for label in DIFFERENCE_TABLE:
        assert np.asarray(layer.colormap.map(label.value)).ravel()[:3] == pytest.approx(label.rgb, abs=0.01)
    assert list(layer.features["name"])[1:] == ["missed", "added", "wrong class"]


def test_contrast_is_that_of_the_organ_not_of_the_background() -> None:
    rng = np.random.default_rng(0)
    data = np.full((40, 50, 30), -7.5, np.float32)
    data[10:30, 10:40, 5:25] = rng.normal(100, 10, (20, 30, 20))
    data[15, 15, 15] = 5000
    display = display_range(Volume(data, Geometry.with_spacing(data.shape)))
    assert 60 < display.low < 90
    assert 110 < display.high < 140
    assert (display.least, display.greatest) == (-7.5, 5000)


def test_contrast_of_a_constant_image_is_usable() -> None:
    display = display_range(Volume(np.full(SHAPE, 3.0, np.float32), grid("RAS")))
    assert display.low < display.high


def test_an_image_layer_can_be_widened_to_every_value() -> None:
    data = np.linspace(0, 1000, int(np.prod(SHAPE)), dtype=np.float32).reshape(SHAPE)
    layer = image_layer(Volume(data, grid("LPS"), name="FLAIR"))
    assert layer.name == "FLAIR"
    assert layer.contrast_limits_range == [0, 1000]
    assert layer.colormap.name == "gray"
    assert np.shares_memory(layer.data, data)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_a_label_map_comes_back_in_its_own_order_and_type(dtype: str) -> None:
    data = np.random.default_rng(1).integers(0, 5, SHAPE).astype(dtype)
    label_map = LabelMap(data, grid("AIR", degrees=17), LabelTable.from_names({1: "a", 4: "d"}), name="seg")
    back = label_map_of(prediction_layer(label_map))
    assert back.data.dtype == dtype
    assert np.array_equal(back.data, data)
    assert back.geometry == label_map.geometry
    assert back.table.values == (1, 2, 3, 4)
    assert back.table[4].name == "d"


def test_a_snapshot_is_not_changed_by_later_strokes() -> None:
    layer = prediction_layer(LabelMap(np.zeros(SHAPE, np.uint8), grid("LPS")))
    before = snapshot(layer)
    layer.data[0, 0, 0] = 1
    assert not before.data.any()
    assert label_map_of(layer).data.sum() == 1


def test_a_layer_of_the_user_is_adopted_if_it_lies_on_the_image() -> None:
    geometry = grid("LPS", degrees=17)
    image = image_layer(Volume(np.random.default_rng(0).random(SHAPE), geometry), case_id="c1")
    mine = Labels(np.zeros(image.data.shape, np.uint8), scale=image.scale, translate=image.translate)
    mine.data[0, 1, 2] = 3
    with pytest.raises(LabelError, match="was not made by napari-seg3d"):
        label_map_of(mine)
    adopt(mine, image)
    assert origin_of(mine).case_id == "c1"
    [voxel] = np.argwhere(label_map_of(mine).data)
    assert voxel_on_screen(voxel, geometry) == (0, 1, 2)


@pytest.mark.parametrize(
    "change", [{"scale": (1, 1, 1)}, {"translate": (0, 0, 0)}, {"data": np.zeros((3, 3, 3), np.uint8)}]
)
def test_a_layer_elsewhere_is_refused_in_words(change: dict[str, Any]) -> None:
    image = image_layer(Volume(np.random.default_rng(0).random(SHAPE), grid("LPS")))
    arguments = {"data": np.zeros(image.data.shape, np.uint8), "scale": image.scale, "translate": image.translate}
    mine = Labels(**{**arguments, **change}, name="mine")
    with pytest.raises(LabelError, match=r"The layer mine .* Make a new labels layer"):
        adopt(mine, image)


def test_wrong_layers_are_refused_in_words() -> None:
    layer = prediction_layer(LabelMap(np.zeros(SHAPE, np.int16), grid("LPS")))
    layer.data = np.zeros((2, 2, 2), np.int16)
    with pytest.raises(GeometryError, match=r"has shape \(2, 2, 2\)"):
        label_map_of(layer)
    layer = prediction_layer(LabelMap(np.zeros(SHAPE, np.int16), grid("LPS")))
    layer.data[1, 1, 1] = -2
    with pytest.raises(LabelError, match="negative value -2"):
        label_map_of(layer)
    with pytest.raises(LabelError, match="was not made by"):
        origin_of(Image(np.zeros(SHAPE)))


# One voxel, through a layer and back to a file: every integer type, oblique, straight, left-handed.

STORED_AS = ["|u1", "|i1", "<u2", ">i2", "<i4", ">u4", "<i8", "<u8", "<f4", ">f8"]
FRAMES = [("RAS", 0.0), ("LPS", 17.0), ("PIR", 17.0), ("ALS", 0.0), ("LAS", 17.0)]


def label_file(path: Path, dtype: str, geometry: Geometry, form: tuple[int, int]) -> NDArray[Any]:
    """A label file with an odd header: extension, description, q/sform codes, calibration, slope 0."""
    rng = np.random.default_rng(3)
    data = rng.choice([0, 1, 2, 100], geometry.shape, p=[0.7, 0.1, 0.1, 0.1]).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    header.set_data_shape(geometry.shape)
    affine = geometry.affine_voxel_to_world
    header.set_sform(affine, code=form[1])
    header.set_qform(affine, code=form[0])
    header["descrip"] = b"made by somebody else"
    header["cal_max"] = 7
    header["xyzt_units"] = 10
    extension = b"any text at all!".ljust(24, b"\0")
    order = header.endianness
    block = struct.pack(f"{order}4B2i", 1, 0, 0, 0, 32, 6) + extension
    header["vox_offset"] = 352 + 32
    content = header.binaryblock + block + data.tobytes(order="F")
    if path.name.endswith(".gz"):
        import gzip

        content = gzip.compress(content)
    path.write_bytes(content)
    return data


def content_of(path: Path) -> bytes:
    import gzip

    raw = path.read_bytes()
    return gzip.decompress(raw) if path.name.endswith(".gz") else raw


@pytest.mark.parametrize("dtype", STORED_AS)
@pytest.mark.parametrize(("codes", "degrees"), FRAMES)
def test_one_painted_voxel_changes_that_voxel_and_not_a_header_byte(
    tmp_path: Path, dtype: str, codes: str, degrees: float
) -> None:
    geometry = grid(codes, degrees)
    suffix = ".nii.gz" if codes in ("RAS", "PIR") else ".nii"
    original = tmp_path / f"original{suffix}"
    data = label_file(original, dtype, geometry, (1, 2))
    layer = prediction_layer(read_label_map(original))
    voxel = (3, 1, 2)
    new = 2 if data[voxel] != 2 else 1
    layer.brush_size = 1
    layer.paint(voxel_on_screen(voxel, geometry), new)
    saved = write_label_map(tmp_path / f"saved{suffix}", label_map_of(layer))

    before, after = content_of(original), content_of(saved)
    size = np.dtype(dtype).itemsize
    first = 384 + size * int(np.ravel_multi_index(voxel, geometry.shape, order="F"))
    assert len(before) == len(after)
    differing = [i for i in range(len(before)) if before[i] != after[i]]
    assert differing
    assert first <= min(differing)
    assert max(differing) < first + size
    assert after[first : first + size] == np.array(new, dtype).tobytes()

    layer.undo()
    again = write_label_map(tmp_path / f"again{suffix}", label_map_of(layer))
    assert content_of(again) == before


def test_the_reader_s_layer_gives_its_file_back_byte_for_byte(tmp_path: Path) -> None:
    label_file(tmp_path / "a.nii", "<u2", grid("LPS", 17.0), (1, 1))
    data, arguments = labels_arguments(read_label_map(tmp_path / "a.nii"))
    write_label_map(tmp_path / "b.nii", label_map_of(Labels(data, **arguments)))
    assert (tmp_path / "b.nii").read_bytes() == (tmp_path / "a.nii").read_bytes()
