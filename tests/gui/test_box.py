"""A box drawn on the screen is the same box in the file, whatever its orientation."""

from __future__ import annotations

import numpy as np
import pytest

from napari_seg3d.gui.box import box_in_words, box_of, drawing_layer
from napari_seg3d.gui.layers import image_layer, on_screen
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import Volume

from .conftest import oblique_affine

#: Voxels along I, P, L that the rectangles below enclose.
ROWS, COLUMNS, SLICES = slice(3, 9), slice(5, 12), slice(2, 6)


def rectangle(image, ranges, axis, at):
    """Corners in world mm of a rectangle that encloses voxels `ranges` on slice `at` of a screen axis."""
    low = [r.start for r in ranges]
    high = [r.stop - 1 for r in ranges]
    low[axis] = high[axis] = at
    first, second = (a for a in range(3) if a != axis)
    corners = []
    for u, v in ((0, 0), (0, 1), (1, 1), (1, 0)):
        corner = list(low)
        corner[first] = (low, high)[u][first]
        corner[second] = (low, high)[v][second]
        corners.append(image.data_to_world(corner))
    return np.array(corners)


def drawn(image, *rectangles):
    layer = drawing_layer(image)
    for corners in rectangles:
        layer.add_rectangles(np.array([layer.world_to_data(corner) for corner in corners]))
    return layer


@pytest.fixture(params=["LPS", "RAS", "PIR", "ASL"])
def image(request):
    geometry = Geometry((20, 24, 16), oblique_affine(request.param))
    return image_layer(Volume(np.zeros(geometry.shape, np.float32), geometry), case_id="a")


def inside(box, image):
    """Where the box lies, as the screen shows it."""
    geometry = image.metadata["seg3d"].geometry
    mask = np.zeros(geometry.shape, bool)
    mask[box] = True
    return on_screen(mask, geometry)


def test_an_axial_rectangle_reaches_through_all_slices(image):
    box = box_of(drawn(image, rectangle(image, (SLICES, ROWS, COLUMNS), 0, 4)), image)
    expected = np.zeros(image.data.shape, bool)
    expected[:, ROWS, COLUMNS] = True
    assert np.array_equal(inside(box, image), expected)


def test_a_second_plane_limits_the_third_direction(image):
    ranges = (SLICES, ROWS, COLUMNS)
    box = box_of(drawn(image, rectangle(image, ranges, 0, 4), rectangle(image, ranges, 1, 7)), image)
    expected = np.zeros(image.data.shape, bool)
    expected[ranges] = True
    assert np.array_equal(inside(box, image), expected)


def test_a_rectangle_beyond_the_image_is_cut(image):
    beyond = (SLICES, slice(-9, 4), slice(10, 400))
    box = box_of(drawn(image, rectangle(image, beyond, 0, 4)), image)
    expected = np.zeros(image.data.shape, bool)
    expected[:, :4, 10:] = True
    assert np.array_equal(inside(box, image), expected)


def test_nothing_drawn_or_nothing_left_is_no_box(image):
    assert box_of(drawn(image), image) is None
    apart = [rectangle(image, (SLICES, ROWS, columns), 0, 4) for columns in (slice(0, 3), slice(8, 12))]
    assert box_of(drawn(image, *apart), image) is None


def test_its_size_in_words():
    geometry = Geometry.with_spacing((10, 20, 30))
    assert box_in_words((slice(0, 5), slice(0, 20), slice(0, 15)), geometry) == "5×20×15 voxels, 25 % of the image"
