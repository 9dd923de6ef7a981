"""A corrected mask goes back voxel for voxel: opened in a real viewer, one voxel painted, saved.

Promise: for label maps of every integer type, plain and gzipped, on straight, left-handed and oblique grids, with byte
order, codes of qform and sform, and the way to say "not scaled" drawn at random, the saved file differs from its source
in the painted voxel and in nothing else.
nibabel tells which voxel that is, independently of this package's own reading. For comparison the same edit is saved
the usual way, through nibabel with the image's header.

    python benchmarks/round_trip.py      (needs a screen; without one: xvfb-run -a python benchmarks/round_trip.py)
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import sys
import tempfile
import time
from pathlib import Path

import napari
import nibabel as nib
import numpy as np
from machine import describe
from napari.layers import Labels
from numpy.typing import NDArray

from napari_seg3d.gui.layers import label_map_of, prediction_layer, voxel_on_screen
from napari_seg3d.volumes.files import read_label_map, write_label_map

SHAPE = (7, 9, 5)
VOXEL = (5, 2, 1)
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")
CODES = ((1, 1), (1, 0), (0, 2), (2, 1), (0, 0))
UNSCALED = (0.0, 1.0, float("nan"))


def rotation(*degrees: float) -> NDArray[np.float64]:
    """Rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        turn = np.eye(3)
        one, other = [a for a in range(3) if a != axis]
        turn[[one, one, other, other], [one, other, one, other]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        matrix = turn @ matrix
    return matrix


def grids() -> dict[str, NDArray[np.float64]]:
    """Anisotropic grids of several orientations; determinants of both signs."""
    spacing = np.diag([0.9, 1.1, 2.5])
    swapped = np.array([[0.0, 0, -1], [-1, 0, 0], [0, 1, 0]])
    directions = {
        "RAS": np.eye(3),
        "LPS": np.diag([-1.0, -1, 1]),
        "LAS, left-handed": np.diag([-1.0, 1, 1]),
        "PSL, left-handed": swapped @ np.diag([1.0, 1, 1]),
        "oblique": rotation(12, -7, 20),
        "oblique, left-handed": rotation(-9, 14, 5) @ np.diag([1.0, -1, 1]),
    }
    affines = {}
    for name, direction in directions.items():
        affines[name] = np.eye(4)
        affines[name][:3, :3] = direction @ spacing
        affines[name][:3, 3] = (-31.5, 12.25, 7.75)
    return affines


def write_source(path: Path, affine: NDArray[np.float64], kind: str, rng: np.random.Generator) -> None:
    """Write a label file that has something in every corner of its header, and an extension."""
    order = rng.choice(["<", ">"])
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(kind).newbyteorder(order))
    header.set_xyzt_units("mm", "sec")
    header["descrip"] = b"drawn by hand"
    header["cal_max"] = 7
    image = nib.Nifti1Image(rng.integers(0, 4, SHAPE).astype(kind), affine, header)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"kept as it is"))
    qform_code, sform_code = rng.choice(CODES)
    image.set_qform(affine, int(qform_code))
    image.set_sform(affine, int(sform_code))
    # Programs say "not scaled" in three ways; nibabel knows one, so the slope is set in the bytes.
    data = bytearray(image.to_bytes())
    data[112:116] = np.array(rng.choice(UNSCALED), dtype=f"{order}f4").tobytes()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)


def content(path: Path) -> bytes:
    """The bytes of a file, unpacked."""
    packed = path.read_bytes()
    return gzip.decompress(packed) if path.name.endswith(".gz") else packed


def only_voxel_changed(before: Path, after: Path, value: int) -> bool:
    """Whether two files have the same bytes but for one voxel, and nibabel finds `value` there and no other change."""
    old, new = np.frombuffer(content(before), np.uint8), np.frombuffer(content(after), np.uint8)
    if old.size != new.size:
        return False
    image, changed_image = nib.load(before), nib.load(after)
    size = image.get_data_dtype().itemsize
    begin = int(image.dataobj.offset) + int(np.ravel_multi_index(VOXEL, SHAPE, order="F")) * size
    changed = np.flatnonzero(old != new)
    was, now = np.asanyarray(image.dataobj), np.asanyarray(changed_image.dataobj)
    return bool(
        changed.size
        and begin <= changed.min()
        and changed.max() < begin + size
        and np.argwhere(was != now).tolist() == [list(VOXEL)]
        and now[VOXEL] == value
    )


def paint(viewer: napari.Viewer, path: Path, out: Path) -> int:
    """Open a label file in the viewer, paint one voxel with the brush, save; return the painted label."""
    label_map = read_label_map(path)
    layer = prediction_layer(label_map, path=path)
    viewer.add_layer(layer)
    assert isinstance(layer, Labels)
    value = (int(label_map.data[VOXEL]) + 1) % 4
    layer.brush_size = 1
    layer.paint(voxel_on_screen(VOXEL, label_map.geometry), value)
    write_label_map(out, label_map_of(layer))
    viewer.layers.remove(layer)
    return value


def save_with_nibabel(path: Path, out: Path, value: int) -> None:
    """The same edit the usual way."""
    image = nib.load(path)
    data = np.asanyarray(image.dataobj).copy()
    data[VOXEL] = value
    nib.save(nib.Nifti1Image(data, image.affine, image.header), out)


def main() -> int:
    """Print how many round trips were exact; 1 if one was not."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(describe())
    viewer = napari.Viewer(show=False)
    rng = np.random.default_rng(0)
    cases = list(itertools.product(grids().items(), TYPES, (".nii", ".nii.gz")))
    exact = exact_with_nibabel = 0
    failed = []
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for i, ((name, affine), kind, ending) in enumerate(cases):
            source, ours, theirs = (Path(folder) / f"{i}-{which}{ending}" for which in ("source", "ours", "nibabel"))
            write_source(source, affine, kind, rng)
            value = paint(viewer, source, ours)
            if only_voxel_changed(source, ours, value):
                exact += 1
            else:
                failed.append(f"{name}, {kind}, {ending}: {nib.load(source).header}")
            save_with_nibabel(source, theirs, value)
            exact_with_nibabel += only_voxel_changed(source, theirs, value)
    viewer.close()
    print(
        f"exact to the byte but for the painted voxel: {exact} of {len(cases)} in {time.perf_counter() - begin:.0f} s"
    )
    print(f"the same saved through nibabel with the source's header: {exact_with_nibabel} of {len(cases)}")
    print("\n".join(failed))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
