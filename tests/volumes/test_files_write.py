"""Writing: the same bytes but for the changed voxels, the same grid for everybody, the old file under every fault."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK

from napari_seg3d.errors import FileError, GeometryError, LabelError
from napari_seg3d.volumes.atomic import sweep_leftovers
from napari_seg3d.volumes.files import read_label_map, read_volume, write_label_map, write_volume
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, Volume

DTYPES = ["<u1", "<i1"] + [order + code for code in ("i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8") for order in "<>"]
FORMS = [(1, 1), (1, 0), (0, 2), (0, 0), (4, 1)]
GRIDS = [("RAS", 0), ("LPS", 20), ("LAS", 33), ("PIR", 12)]


def painted(label_map: LabelMap) -> LabelMap:
    data = label_map.data.copy()
    data[3, 4, 2] = 2 if data[3, 4, 2] != 2 else 1
    return label_map.with_data(data)


def header_of(path) -> nibabel.Nifti1Header:
    return nibabel.load(path).header


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- over the same grid


@pytest.mark.parametrize("name", ["mask.nii", "mask.nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("slope", [0.0, np.nan, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_only_the_painted_voxel_changes(make, affine, extension, dtype, slope, version, name):
    # Grid, forms and extension go round with the rest, so that all meet without multiplying the cases.
    turn = DTYPES.index(dtype) + version
    codes, degrees = GRIDS[turn % len(GRIDS)]
    path = make(
        name,
        dtype=dtype,
        version=version,
        slope=slope,
        affine=affine(codes, degrees),
        codes=FORMS[turn % len(FORMS)],
        extension=(b"", extension, extension + bytes(48))[turn % 3],
        trailer=(b"", b"a tail of seventeen"[:17])[turn % 2],
    )
    before = make.unpacked(path)
    label_map = read_label_map(path)

    write_label_map(path, label_map, overwrite=True)
    assert make.unpacked(path) == before

    write_label_map(path, painted(label_map), overwrite=True)
    after = make.unpacked(path)
    assert len(after) == len(before)
    place = len(label_map.source.header) + (3 + 7 * (4 + 9 * 2)) * np.dtype(dtype).itemsize
    changed = [i for i, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    assert changed
    assert place <= min(changed) <= max(changed) < place + np.dtype(dtype).itemsize
    assert np.array_equal(read_label_map(path).data, painted(label_map).data)
    assert names(path.parent) == [name]


def test_the_bytes_are_kept_under_another_name_and_packing(make, tmp_path, extension):
    path = make("mask.nii", dtype=">i2", extension=extension, trailer=b"tail")
    for name in ("copy.nii.gz", "copy.nii"):
        write_label_map(tmp_path / name, read_label_map(path))
        assert make.unpacked(tmp_path / name) == path.read_bytes()


def test_rounded_floats_become_integers_in_their_own_type(make, labels):
    path = make(stored=labels * np.float32(0.99999997), dtype="<f4")
    write_label_map(path, read_label_map(path), overwrite=True)
    assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), labels.astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "value", "wider"),
    [
        ("<u1", 300, "uint16"),
        ("<i1", 200, "uint8"),
        (">i2", 40_000, "uint16"),
        ("<u2", 70_000, "int32"),
        ("<i4", 2**31, "uint32"),
        ("<f4", 2**24 + 1, "int32"),
        ("<u1", 2**33, "uint64"),
    ],
)
@pytest.mark.parametrize("forms", FORMS)
@pytest.mark.parametrize("version", [1, 2])
def test_values_that_do_not_fit_get_a_wider_type_on_the_same_grid(
    make, affine, extension, dtype, value, wider, forms, version
):
    # nibabel wants an extension in the byte order of its file.
    extension = extension if dtype[0] == "<" else b""
    path = make(dtype=dtype, codes=forms, affine=affine("LAS", 25), extension=extension, version=version)
    old = header_of(path)
    label_map = read_label_map(path)
    data = np.where(label_map.data == 4, value, label_map.data.astype(np.int64))
    write_label_map(path, label_map.with_data(data), overwrite=True)
    image = nibabel.load(path)
    new = image.header
    assert np.array_equal(np.asanyarray(image.dataobj), data)
    assert new.get_data_dtype() == np.dtype(wider)
    assert type(new) is type(old)
    assert (new["sform_code"], new["qform_code"]) == forms
    assert np.array_equal(new.get_best_affine(), old.get_best_affine())
    assert np.array_equal(new.get_sform(), old.get_sform())
    assert np.array_equal(new.get_qform(), old.get_qform())
    assert new.get_zooms() == old.get_zooms()
    assert new.get_xyzt_units()[0] == "mm"


def test_scaled_labels_get_a_plain_header(make, labels):
    """The stored header would turn every new value into another one."""
    for slope in (2.0, 1 / 3):
        stored = np.where(labels == 4, 3, labels)
        path = make(stored=stored, slope=slope)
        label_map = read_label_map(path)
        write_label_map(path, painted(label_map), overwrite=True)
        assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), painted(label_map).data)


# --- new files


@pytest.mark.parametrize("forms", FORMS)
@pytest.mark.parametrize(("codes", "degrees"), GRIDS)
@pytest.mark.parametrize("version", [1, 2])
def test_a_prediction_lies_exactly_on_its_image(make, affine, labels, tmp_path, codes, degrees, forms, version):
    image_path = make(
        "image.nii.gz",
        np.zeros((7, 9, 5)),
        dtype=">f4",
        slope=3.5,
        intercept=-7,
        affine=affine(codes, degrees),
        codes=forms,
        version=version,
    )
    image = read_volume(image_path)
    path = write_label_map(tmp_path / "labels.nii.gz", LabelMap(labels, image.geometry), like=image.source)
    old, new = header_of(image_path), header_of(path)
    assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), labels)
    assert np.array_equal(nibabel.load(path).affine, nibabel.load(image_path).affine)
    assert (new["sform_code"], new["qform_code"]) == forms
    assert np.array_equal(new.get_sform(), old.get_sform())
    assert np.array_equal(new.get_qform(), old.get_qform())
    assert new.get_zooms() == old.get_zooms()
    assert new.get_xyzt_units() == ("mm", "unknown")
    assert new.get_data_dtype() == np.uint8
    assert new["intent_code"] == 1002
    # nibabel shows NaN for what it has applied; the file itself says 1.
    assert type(new)(make.unpacked(path)[: new["sizeof_hdr"]], check=False).get_slope_inter() == (1, 0)
    if version == 2:
        # ITK reads no NIfTI-2.
        return
    itk, itk_image = SimpleITK.ReadImage(path), SimpleITK.ReadImage(image_path)
    assert np.array_equal(SimpleITK.GetArrayFromImage(itk).transpose(), labels)
    for facts in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(itk, facts)() == getattr(itk_image, facts)()


def test_a_source_of_another_format_lends_nothing(make, labels, tmp_path):
    label_map = read_label_map(make())
    foreign = replace(label_map.source, format="NRRD", header=b"NRRD0005")
    path = write_label_map(tmp_path / "new.nii", replace(label_map, source=foreign), like=foreign)
    assert np.array_equal(read_label_map(path).data, labels)
    assert read_label_map(path).geometry.same_grid(label_map.geometry)


@pytest.mark.parametrize("slope", [0, 1, 2])
def test_nothing_of_a_patient_comes_along(make, labels, tmp_path, extension, slope):
    image = read_volume(make("image.nii", extension=extension, trailer=b"DOE^JANE", slope=slope))
    for name, written in {
        "like.nii": write_label_map(tmp_path / "like.nii", LabelMap(labels, image.geometry), like=image.source),
        "misused.nii": write_label_map(tmp_path / "misused.nii", LabelMap(labels, image.geometry, source=image.source)),
        "volume.nii": write_volume(tmp_path / "volume.nii", replace(image, data=image.data + 1)),
    }.items():
        content = written.read_bytes()
        assert b"DOE" not in content, name
        assert header_of(written)["cal_max"] == 0
        assert len(content) == 352 + labels.size * (4 if name == "volume.nii" and slope == 2 else 1)


def test_spacings_of_a_sloppy_header_are_put_right(make, labels, tmp_path, affine):
    """Only the sform counts in the source, and its pixdim says 1 mm."""
    source = read_volume(make(codes=(2, 0), pixdim=[1, 1, 1, 1, 0, 0, 0, 0], affine=affine("LPS", 20)))
    path = write_label_map(tmp_path / "new.nii", LabelMap(labels, source.geometry), like=source.source)
    assert header_of(path).get_zooms() == pytest.approx((0.9, 1.1, 2.5))
    assert header_of(path)["qform_code"] == 0


def test_units_of_the_source_are_kept(make, labels, tmp_path):
    source_path = make(xyzt_units=3, affine=np.diag([900.0, 1100, 2500, 1]), codes=(1, 0))
    source = read_volume(source_path)
    path = write_label_map(tmp_path / "new.nii", LabelMap(labels, source.geometry), like=source.source)
    assert header_of(path).get_xyzt_units()[0] == "micron"
    assert header_of(path).get_zooms() == pytest.approx((900, 1100, 2500))
    assert read_label_map(path).geometry == source.geometry


@pytest.mark.parametrize(("codes", "degrees"), GRIDS)
def test_without_a_source_both_forms_say_the_same(affine, labels, tmp_path, codes, degrees):
    geometry = Geometry(labels.shape, affine(codes, degrees))
    path = write_label_map(tmp_path / "new.nii.gz", LabelMap(labels, geometry))
    header = header_of(path)
    assert (header["sform_code"], header["qform_code"]) == (1, 1)
    assert np.array_equal(header.get_sform(), affine(codes, degrees).astype(np.float32))
    assert header.get_qform() == pytest.approx(affine(codes, degrees), abs=1e-5)
    assert read_label_map(path).source.notes == ()
    assert read_label_map(path).geometry.same_grid(geometry)


def test_on_another_grid_only_the_codes_are_the_sources(make, affine, tmp_path):
    source = read_label_map(make(codes=(0, 2)))
    moved = Geometry((7, 9, 5), affine("RAS", 5))
    path = write_label_map(tmp_path / "moved.nii", LabelMap(source.data, moved, source=source.source))
    assert (header_of(path)["sform_code"], header_of(path)["qform_code"]) == (0, 2)
    assert read_label_map(path).geometry.same_grid(moved)
    cropped = Geometry((3, 9, 5), source.geometry.affine_voxel_to_world)
    path = write_label_map(tmp_path / "cropped.nii", LabelMap(source.data[:3], cropped, source=source.source))
    assert np.array_equal(read_label_map(path).data, source.data[:3])
    assert read_label_map(path).geometry.same_grid(cropped)


def test_a_slight_shear_is_kept_by_the_sform(affine, labels, tmp_path):
    sheared = affine("LPS", 20)
    sheared[:3, 1] += 0.01 * sheared[:3, 0]
    path = write_label_map(tmp_path / "new.nii", LabelMap(labels, Geometry(labels.shape, sheared)))
    assert (header_of(path)["sform_code"], header_of(path)["qform_code"]) == (1, 0)
    assert nibabel.load(path).affine == pytest.approx(sheared, abs=1e-5)


def test_a_shear_that_nothing_reads_is_named_as_the_reason(affine, labels, tmp_path):
    sheared = affine("LPS", 20)
    sheared[:3, 1] += 0.1 * sheared[:3, 0]
    geometry = Geometry(labels.shape, sheared)
    for write, what in (
        (write_label_map, LabelMap(labels, geometry)),
        (write_volume, Volume(labels.astype(np.float32), geometry)),
    ):
        with pytest.raises(GeometryError, match=r"sheared.* degrees from perpendicular") as caught:
            write(tmp_path / "new.nii", what)
        assert "disk" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", ">i2", "i8", "u4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_layout_does_not_matter(labels, affine, tmp_path, dtype, order):
    data = np.array(labels, dtype=dtype, order=order)
    geometry = Geometry(labels.shape, affine("LPS"))
    path = write_label_map(tmp_path / "new.nii.gz", LabelMap(data, geometry))
    assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), labels)
    assert header_of(path).get_data_dtype() == np.uint8
    flipped = LabelMap(data[::-1, :, ::2], Geometry((7, 9, 3), affine("LPS")))
    path = write_label_map(tmp_path / "view.nii", flipped)
    assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), labels[::-1, :, ::2])


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("f4", "f4"),
        ("f8", "f4"),
        ("f2", "f4"),
        (">f4", "f4"),
        ("bool", "u1"),
        ("u1", "u1"),
        (">i2", "i2"),
        ("i8", "i8"),
    ],
)
def test_volumes(make, affine, tmp_path, dtype, stored):
    data = (np.random.default_rng(0).normal(0, 30, (7, 9, 5))).astype(dtype)
    volume = Volume(data, Geometry(data.shape, affine("PIR", 20)))
    path = write_volume(tmp_path / "volume.nii.gz", volume)
    back = read_volume(path)
    assert np.array_equal(back.data, data.astype(stored))
    assert back.data.dtype == np.dtype(stored)
    assert back.geometry.same_grid(volume.geometry)
    assert header_of(path)["intent_code"] == 0
    if stored != "i8":
        assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), data.astype(stored))


def test_nan_can_be_written_and_is_told_on_reading(affine, tmp_path):
    data = np.zeros((7, 9, 5), np.float32)
    data[1, 1, 1] = np.nan
    path = write_volume(tmp_path / "volume.nii", Volume(data, Geometry(data.shape, affine("RAS"))))
    with pytest.raises(FileError, match="1 of 315 voxels"):
        read_volume(path)


def test_a_side_longer_than_nifti_1_can_say(tmp_path):
    data = np.zeros((40_000, 1, 1), np.uint8)
    data[39_999] = 1
    path = write_label_map(tmp_path / "long.nii.gz", LabelMap(data, Geometry.with_spacing(data.shape)))
    assert read_label_map(path).source.format == "NIfTI-2"
    assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), data)


def test_the_same_content_gives_the_same_bytes(label_map, tmp_path):
    one = write_label_map(tmp_path / "one.nii.gz", label_map).read_bytes()
    time.sleep(0.01)
    assert write_label_map(tmp_path / "other.nii.gz", label_map).read_bytes() == one
    assert one[4:8] == bytes(4), "no date"
    assert b"one" not in one, "no name"


# --- refusals


def test_existing_files_are_kept_unless_told(make, label_map):
    path = make()
    old = path.read_bytes()
    with pytest.raises(FileError, match=r"Cannot write scan\.nii\.gz: a file of that name exists already"):
        write_label_map(path, label_map)
    with pytest.raises(FileError, match="exists already"):
        write_volume(path, Volume(label_map.data, label_map.geometry))
    assert path.read_bytes() == old


@pytest.mark.parametrize("name", ["mask.nrrd", "mask.tif", "mask", "mask.gz"])
def test_other_formats_are_refused_by_name(label_map, tmp_path, name):
    with pytest.raises(FileError, match=rf"Cannot write {name}: it .*expected NIfTI"):
        write_label_map(tmp_path / name, label_map)
    assert names(tmp_path) == []


def test_negative_labels_and_complex_volumes(label_map, tmp_path):
    with pytest.raises(LabelError, match="got -1"):
        write_label_map(tmp_path / "mask.nii", label_map.with_data(label_map.data.astype(int) - 1))
    with pytest.raises(FileError, match="expected real numbers, got complex64"):
        write_volume(tmp_path / "x.nii", Volume(label_map.data.astype("c8"), label_map.geometry))
    assert names(tmp_path) == []


def test_a_missing_folder(label_map, tmp_path):
    with pytest.raises(FileError, match=r"the folder does not exist\. Create it"):
        write_label_map(tmp_path / "no" / "mask.nii", label_map)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", ["mask.nii", "mask.nii.gz"])
def test_the_old_file_survives_wherever_writing_stops(make, name):
    path = make(name, np.random.default_rng(0).integers(0, 5, (7, 9, 5)))
    old = path.read_bytes()
    label_map = read_label_map(path)
    for size in range(0, len(old) - 20, 13):
        with largest_file(size), pytest.raises(FileError, match=f"Cannot write {name}: the file would be larger"):
            write_label_map(path, painted(label_map), overwrite=True)
        assert path.read_bytes() == old
        assert names(path.parent) == [name]


def test_a_disk_that_loses_what_is_written(make):
    """The file is read again before it takes the old one's place."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed, so no system call can be made to lie")
    path = make("mask.nii")
    old = path.read_bytes()
    script = (
        "import sys\n"
        "from napari_seg3d.errors import FileError\n"
        "from napari_seg3d.volumes.files import read_label_map, write_label_map\n"
        "path = sys.argv[1]\n"
        "label_map = read_label_map(path)\n"
        "label_map = label_map.with_data(label_map.data + 1)\n"
        "try: write_label_map(path, label_map, overwrite=True)\n"
        "except FileError as error: sys.exit(str(error))"
    )
    # The first write of the saving process claims success and does nothing.
    strace = ["strace", "-f", "-qq", "-o", os.devnull, "--trace=write", "--inject=write:retval=352:when=1"]
    done = subprocess.run(
        [*strace, sys.executable, "-B", "-c", script, path], capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace here")
    assert "Cannot write mask.nii: it does not read back as it should" in done.stderr
    assert path.read_bytes() == old
    assert names(path.parent) == ["mask.nii"]


SAVER = """
import os, sys
import numpy as np
from napari_seg3d.volumes.files import read_label_map, write_label_map
path = sys.argv[1]
label_map = read_label_map(path)
versions = [label_map.with_data(np.full_like(label_map.data, value)) for value in (1, 2)]
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        while True:
            for version in versions:
                write_label_map(path, version, overwrite=True)
                print("saved", flush=True)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


@pytest.mark.parametrize("name", ["mask.nii", "mask.nii.gz"])
def test_killed_while_saving(make, name):
    """A process that saves over and over is killed at random moments: the file always is one of the two versions."""
    path = make(name, np.ones((50, 40, 30)))
    folder = path.parent
    dice = random.Random(1)
    saver = subprocess.Popen(
        [sys.executable, "-c", SAVER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )

    def answer() -> str:
        line = saver.stdout.readline().strip()
        assert line, "the saving process has ended"
        return line

    left_over = 0
    try:
        for _ in range(10):
            saver.stdin.write("go\n")
            child = int(answer())
            start = time.perf_counter()
            assert answer() == "saved"
            # Then within the next save or two, on a busy machine as on a quiet one.
            time.sleep(dice.uniform(0, 2) * (time.perf_counter() - start))
            os.kill(child, signal.SIGKILL)
            while answer() != "gone":
                pass
            values = np.unique(read_label_map(path).data).tolist()
            assert values in ([1], [2])
            left_over += len(sweep_leftovers(folder))
            assert names(folder) == [name]
    finally:
        saver.stdin.close()
        saver.wait(30)
        saver.stdout.close()
    assert left_over > 0, "no kill met a save under way"


def test_brats_truth_round_trip(shared_data, make, tmp_path):
    original = next((shared_data / "BraTS2013").glob("brats_*/OTMultiClass.nii.gz"))
    label_map = read_label_map(original)
    path = write_label_map(tmp_path / "truth.nii.gz", label_map)
    assert make.unpacked(path) == make.unpacked(original)
    small = write_label_map(tmp_path / "small.nii.gz", replace(label_map, source=None), like=label_map.source)
    itk, itk_original = SimpleITK.ReadImage(small), SimpleITK.ReadImage(original)
    assert itk.GetOrigin() == itk_original.GetOrigin()
    assert itk.GetDirection() == itk_original.GetDirection()
    assert np.array_equal(SimpleITK.GetArrayViewFromImage(itk), SimpleITK.GetArrayViewFromImage(itk_original))
