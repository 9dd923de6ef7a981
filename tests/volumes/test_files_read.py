"""Reading: the same voxels, grid and values as nibabel and SimpleITK read, whatever the file is stored like."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK

from napari_seg3d.volumes.files import FileInfo, inspect_file, read_label_map, read_volume, strip_suffix
from napari_seg3d.volumes.volume import LabelTable

DTYPES = [order + code for code in ("i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8") for order in "<>"] + ["u1", "i1"]
GRIDS = [("RAS", 0), ("LPS", 0), ("LAS", 20), ("PIR", 20), ("SRP", 33), ("IAL", 5)]


def itk_affine(image: SimpleITK.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_voxels_of_every_type(make, dtype, version, name):
    signed = np.dtype(dtype).kind != "u"
    stored = np.random.default_rng(1).integers(-90 if signed else 0, 120, (7, 9, 5))
    path = make(name, stored, dtype=dtype, version=version)
    volume = read_volume(path)
    assert np.array_equal(volume.data, stored)
    assert np.array_equal(volume.data, np.asanyarray(nibabel.load(path).dataobj))
    assert volume.data.dtype == (np.dtype("f4") if "f" in dtype else np.dtype(dtype).newbyteorder("="))
    assert volume.data.dtype.isnative
    assert volume.data.flags.writeable
    assert np.dtype(volume.source.stored_dtype) == np.dtype(dtype)
    assert volume.source.format == f"NIfTI-{version}"
    assert volume.name == "scan"


@pytest.mark.parametrize(("codes", "degrees"), GRIDS)
@pytest.mark.parametrize("forms", [(1, 1), (1, 0), (0, 2), (4, 1), (0, 0)])
def test_grids(make, affine, codes, degrees, forms):
    path = make(affine=affine(codes, degrees), codes=forms)
    geometry = read_volume(path).geometry
    assert np.array_equal(geometry.affine_voxel_to_world, nibabel.load(path).affine)
    assert inspect_file(path).geometry == geometry
    if any(forms):
        assert geometry.orientation == codes
        itk = itk_affine(SimpleITK.ReadImage(path))
        assert geometry.affine_voxel_to_world == pytest.approx(itk, abs=1e-4)


def test_voxels_lie_where_itk_says(make, affine):
    stored = np.arange(7 * 9 * 5).reshape(7, 9, 5)
    path = make(stored=stored, dtype="<i2", affine=affine("PIR", 20))
    volume, itk = read_volume(path), SimpleITK.ReadImage(path)
    for voxel in [(0, 0, 0), (6, 0, 0), (2, 8, 3)]:
        point = np.diag([-1.0, -1.0, 1.0]) @ volume.geometry.world(voxel)
        assert itk.GetPixel(itk.TransformPhysicalPointToIndex(point)) == volume.data[voxel]


@pytest.mark.parametrize(("slope", "intercept"), [(0, 5), (np.nan, np.nan), (1, 0), (2, 0), (1, -1024), (0.013, 0.7)])
@pytest.mark.parametrize("dtype", ["<i2", ">f4", "<i4"])
def test_scaling(make, dtype, slope, intercept):
    stored = np.random.default_rng(1).integers(0, 2_000_000 if dtype == "<i4" else 2000, (7, 9, 5))
    path = make(stored=stored, dtype=dtype, slope=slope, intercept=intercept)
    volume = read_volume(path)
    expected = nibabel.load(path).get_fdata()
    # float32 keeps 24 bits; that each value is the nearest one is as exact as it can be.
    assert np.array_equal(volume.data.astype(np.float32), expected.astype(np.float32))
    scaled = slope in (2, 0.013) or intercept == -1024
    assert volume.data.dtype == (np.float32 if scaled or "f" in dtype else np.dtype(dtype))


def test_a_channel_of_four(make):
    stored = np.random.default_rng(1).integers(0, 99, (7, 9, 5, 4))
    path = make(stored=stored)
    assert inspect_file(path).channels == 4
    for channel in range(4):
        assert np.array_equal(read_volume(path, channel=channel).data, stored[..., channel])


def test_channels_on_the_fifth_axis(make):
    stored = np.random.default_rng(1).integers(0, 99, (7, 9, 5, 1, 3))
    path = make("scan.nii", stored)
    assert np.array_equal(read_volume(path, channel=2).data, stored[..., 0, 2])


def test_one_channel_is_an_ordinary_volume(make, labels):
    path = make(stored=labels[..., None, None])
    assert np.array_equal(read_volume(path).data, labels)
    assert np.array_equal(read_volume(path, channel=0).data, labels)
    assert np.array_equal(read_label_map(path).data, labels)


def test_extensions_padding_and_trailing_bytes_are_remembered(make, labels, extension):
    path = make(extension=extension + bytes(64), trailer=b"tail")
    source = read_label_map(path).source
    whole = make.unpacked(path)
    assert source.header + labels.tobytes(order="F") + source.trailer == whole
    assert len(source.header) == 352 + len(extension) + 64
    assert (source.size, source.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)


def test_gzip_members_and_padding(make, labels):
    path = make("scan.nii")
    content = path.read_bytes()
    packed = path.parent / "packed.nii.gz"
    # As bgzip and cat leave it: several members, the first ends within the header, zeros behind the last.
    packed.write_bytes(gzip.compress(content[:100]) + gzip.compress(content[100:400]) + gzip.compress(content[400:]))
    assert np.array_equal(read_volume(packed).data, labels)
    packed.write_bytes(gzip.compress(content) + bytes(1000))
    assert np.array_equal(read_volume(packed).data, labels)


def test_capitals_spaces_and_unicode_in_names(make, labels):
    for name in ("SCAN.NII.GZ", "Scan.Nii", "zwei Wörter.nii.gz", "-x.nii"):
        assert np.array_equal(read_volume(make(name)).data, labels)


def test_strip_suffix():
    assert strip_suffix("/a/b.c/patient.01_T1.NII.gz") == "patient.01_T1"
    assert strip_suffix("patient.nii") == "patient"
    assert strip_suffix("notes.txt") == "notes.txt"


def test_inspecting_reads_no_voxels(make):
    whole = make("whole.nii", np.zeros((60, 60, 60)), dtype="<f4")
    info = inspect_file(whole)
    assert info == FileInfo(whole, read_volume(whole).geometry, 1, "float32")
    packed = make("packed.nii.gz", np.random.default_rng(0).normal(size=(60, 60, 60)), dtype="<f4")
    content = bytearray(packed.read_bytes())
    content[-5] ^= 1
    packed.write_bytes(content)
    # The damage at the end is found by whoever reads the voxels.
    assert inspect_file(packed).geometry.shape == (60, 60, 60)


# --- label maps


@pytest.mark.parametrize(
    ("dtype", "top"),
    [
        (dtype, top)
        for dtype in DTYPES
        for top in (4, 120, 255, 256, 65535, 65536, 2**31)
        if "f" in dtype or top <= np.iinfo(np.dtype(dtype)).max
    ],
)
def test_labels_get_the_smallest_type(make, labels, dtype, top):
    stored = np.where(labels == 4, top, labels.astype(np.int64))
    label_map = read_label_map(make(stored=stored, dtype=dtype))
    assert np.array_equal(label_map.data, stored)
    assert label_map.data.dtype == np.min_scalar_type(top)
    assert label_map.data.dtype.isnative
    assert label_map.table.values == (1, 2, top)
    assert np.dtype(label_map.source.stored_dtype) == np.dtype(dtype)
    assert label_map.source.notes == ()


def test_names_come_from_the_table_and_unknown_values_are_added(make):
    table = LabelTable.from_names({1: "oedema", 3: "necrosis"})
    label_map = read_label_map(make(), table)
    assert [(label.value, label.name) for label in label_map.table] == [
        (1, "oedema"),
        (2, "label 2"),
        (3, "necrosis"),
        (4, "label 4"),
    ]


def test_no_foreground_is_allowed(make):
    label_map = read_label_map(make(stored=np.zeros((7, 9, 5))))
    assert label_map.table.values == ()
    assert not label_map.data.any()


def test_labels_left_beside_integers_by_arithmetic_are_rounded(make, labels):
    label_map = read_label_map(make(stored=labels * np.float32(0.99999997), dtype="<f4"))
    assert np.array_equal(label_map.data, labels)
    label_map = read_label_map(make(stored=labels * 0.9999, dtype="<f4"))
    assert np.array_equal(label_map.data, labels)
    assert "rounded" in label_map.source.notes[0]


def test_scaling_to_integers_is_applied(make, labels):
    label_map = read_label_map(make(stored=labels, dtype="<i2", slope=1 / 255 * 510))
    assert np.array_equal(label_map.data, labels * 2)


def test_scaling_to_fractions_falls_back_to_the_stored_integers(make, labels):
    labels = np.where(labels == 4, 3, labels)
    label_map = read_label_map(make(stored=labels, slope=1 / 3))
    # 1/3 of 3 is 1: only the whole of the values tells.
    assert np.array_equal(label_map.data, labels)
    assert "scales the labels to fractions" in label_map.source.notes[0]


def test_scaling_to_fractions_with_names(make, labels):
    table = LabelTable.from_names({1: "a", 2: "b", 4: "c"})
    assert np.array_equal(read_label_map(make(slope=1 / 3), table).data, labels)


def test_an_atlas_of_many_labels_is_no_image(make):
    x, y, z = np.indices((40, 36, 30)) // 6
    atlas = x * 100 + y * 10 + z
    assert len(read_label_map(make(stored=atlas, dtype="<i2")).table) == np.unique(atlas).size - 1 > 200


# --- what is odd but readable


@pytest.mark.parametrize("read", [read_volume, read_label_map, inspect_file])
def test_notes(make, affine, read):
    def notes(**choices: object) -> str:
        found = read(make(**choices))
        return " ".join(found.notes if isinstance(found, FileInfo) else found.source.notes)

    assert notes() == ""
    assert "left and right are a guess" in notes(codes=(0, 0))
    assert "sform and qform (the grids lie up to 3 mm apart); the sform is used" in notes(qoffset_x=-28.25)
    assert "micrometres" in notes(xyzt_units=3)
    assert "64 bits per voxel" in notes(bitpix=64)
    sheared = affine("LPS", 20)
    sheared[:3, 1] += 0.01 * sheared[:3, 0]
    assert "degrees from perpendicular" in notes(affine=sheared, codes=(1, 0))


def test_units_become_millimetres(make):
    path = make(xyzt_units=3, affine=np.diag([900.0, 1100, 2500, 1]))
    assert read_volume(path).geometry.spacing_mm == pytest.approx((0.9, 1.1, 2.5))
    assert SimpleITK.ReadImage(path).GetSpacing() == pytest.approx((0.9, 1.1, 2.5))


def test_small_faults_of_the_header_are_read_as_others_read_them(make, affine):
    for fields in ({"pixdim": [0, 0.9, 1.1, 2.5, 0, 0, 0, 0]}, {"sform_code": 9}, {"qform_code": -3}):
        path = make(affine=affine("RAS", 20), codes=(0, 1) if "pixdim" in fields else (1, 1), **fields)
        assert np.array_equal(read_volume(path).geometry.affine_voxel_to_world, nibabel.load(path).affine)


def test_a_quaternion_longer_than_one_is_normalised(make):
    path = make(affine=np.diag([-0.9, -1.1, 2.5, 1]), codes=(0, 1), quatern_d=1.0004)
    assert read_volume(path).geometry.affine_voxel_to_world[:3, :3] == pytest.approx(
        np.diag([-0.9, -1.1, 2.5]), abs=1e-3
    )


# --- real studies


def test_hippocampus(shared_data):
    for path in sorted((shared_data / "Task04_Hippocampus" / "labelsTr").glob("[!.]*.nii.gz"))[:8]:
        label_map, volume = read_label_map(path), read_volume(path.parent.parent / "imagesTr" / path.name)
        image = nibabel.load(path)
        assert np.array_equal(label_map.data, np.asanyarray(image.dataobj))
        assert label_map.data.dtype == np.uint8
        assert label_map.table.values == (1, 2)
        assert label_map.geometry.same_grid(volume.geometry)
        itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(volume.source.path)).transpose()
        assert np.array_equal(volume.data, itk)


def test_brats_labels_stored_as_floats(shared_data):
    folder = next((shared_data / "BraTS2013").glob("brats_*"))
    label_map = read_label_map(folder / "OTMultiClass.nii.gz")
    assert label_map.source.stored_dtype == "<f4"
    assert label_map.data.dtype == np.uint8
    assert label_map.table.values == (1, 2, 3, 4)
    assert label_map.geometry.orientation == "LPS"
    assert np.array_equal(label_map.data, np.asanyarray(nibabel.load(folder / "OTMultiClass.nii.gz").dataobj))
    mask = read_volume(folder / "brainmask.nii.gz").data
    assert set(np.unique(np.round(mask, 6))) == {0, 1}
