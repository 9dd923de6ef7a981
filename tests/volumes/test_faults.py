"""Bad input: every file is refused in one or two sentences that name it, before memory is taken for it."""

from __future__ import annotations

import gzip
import os
import time
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest

from napari_seg3d.errors import FileError, GeometryError, LabelError, Seg3dError
from napari_seg3d.volumes.files import inspect_file, read_label_map, read_volume
from napari_seg3d.volumes.volume import LabelTable

READERS = [read_volume, read_label_map, inspect_file]


def refusal(read, path, kind=FileError, **choices) -> str:
    """The message, checked for what every message must have."""
    with pytest.raises(kind) as caught:
        read(path, **choices)
    message = str(caught.value)
    assert path.name in message
    assert str(path.parent) not in message, "a whole path can hold a patient's name"
    assert message.endswith(".")
    assert 1 <= message.replace(path.name, "").count(". ") + 1 <= 2, f"one or two sentences: {message}"
    assert "\n" not in message
    return message


@pytest.mark.parametrize("read", READERS)
class TestNotAnImage:
    def test_missing(self, tmp_path, read):
        assert "does not exist" in refusal(read, tmp_path / "scan.nii.gz")

    def test_folder(self, tmp_path, read):
        (tmp_path / "scan.nii").mkdir()
        assert "is a folder" in refusal(read, tmp_path / "scan.nii")
        assert "is a folder" in refusal(read, tmp_path)

    def test_pipe(self, tmp_path, read):
        os.mkfifo(tmp_path / "scan.nii")
        assert "a pipe" in refusal(read, tmp_path / "scan.nii")

    def test_no_permission(self, tmp_path, read):
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        path = tmp_path / "scan.nii"
        path.write_bytes(b"x")
        path.chmod(0)
        folders = [folder for folder in path.parents if not folder.stat().st_mode & 0o001]
        modes = [folder.stat().st_mode for folder in folders]
        for folder in folders:
            folder.chmod(0o711)
        os.seteuid(65534)
        try:
            assert "Permission denied" in refusal(read, path)
        finally:
            os.seteuid(0)
            for folder, mode in zip(folders, modes, strict=True):
                folder.chmod(mode)

    @pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha", "scan.dcm", "scan.tif", "scan.mgz", "scan.hdr"])
    def test_other_formats(self, make, read, name):
        assert "file by its name; expected NIfTI (.nii or .nii.gz)" in refusal(read, make(name))

    @pytest.mark.parametrize("name", ["scan.gz", "scan.nii.bz2", "scan", "scan.txt", "nii.gz"])
    def test_other_names(self, make, read, name):
        assert "does not have the name of an image" in refusal(read, make(name))

    @pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
    def test_empty(self, tmp_path, read, name):
        (tmp_path / name).touch()
        assert "is empty (0 bytes)" in refusal(read, tmp_path / name)

    @pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
    @pytest.mark.parametrize("content", [b"hello", b"patient,volume\n" * 100, bytes(5000), b"\x89HDF\r\n\x1a\n" * 200])
    def test_something_else_inside(self, make, read, name, content):
        message = refusal(read, make.raw(name, content))
        assert "does not hold a NIfTI image" in message or "too short to hold a NIfTI header" in message

    def test_gzipped_or_not_against_the_name(self, make, read):
        packed, plain = make("packed.nii.gz"), make("plain.nii")
        wrong = packed.with_name("wrong.nii")
        wrong.write_bytes(packed.read_bytes())
        assert "is gzipped although its name has no .gz" in refusal(read, wrong)
        wrong = packed.with_name("wrong.nii.gz")
        wrong.write_bytes(plain.read_bytes())
        assert "is not gzipped although its name says so" in refusal(read, wrong)

    def test_half_of_a_pair(self, make, read):
        assert "two-file image" in refusal(read, make("scan.nii", magic=b"ni1"))
        assert "two-file image" in refusal(read, make("scan.nii", magic=b""))
        assert "header is damaged" in refusal(read, make("scan.nii", magic=b"n+9"))


@pytest.mark.parametrize("read", READERS)
class TestHeader:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"dim": [2, 7, 9, 1, 1, 1, 1, 1]}, "is a 2-D image (7×9)"),
            ({"dim": [1, 7, 1, 1, 1, 1, 1, 1]}, "is a 1-D image (7)"),
            ({"dim": [3, 7, 0, 5, 1, 1, 1, 1]}, "has no voxels: its size is 7×0×5"),
            ({"dim": [3, 7, -5, 5, 1, 1, 1, 1]}, "has no voxels: its size is 7×-5×5"),
            ({"dim": [0, 7, 9, 5, 1, 1, 1, 1]}, "claims 0 axes"),
            ({"dim": [99, 7, 9, 5, 1, 1, 1, 1]}, "claims 99 axes"),
            ({"datatype": 128}, "colour image (RGB)"),
            ({"datatype": 2304}, "colour image (RGB)"),
            ({"datatype": 32}, "complex numbers"),
            ({"datatype": 1792}, "complex numbers"),
            ({"datatype": 1536}, "not supported"),
            ({"datatype": 1}, "not supported"),
            ({"datatype": 777}, "unknown voxel type (777)"),
            ({"vox_offset": 100}, "puts the voxels at byte 100"),
            ({"vox_offset": np.nan}, "puts the voxels at byte nan"),
            ({"vox_offset": 352.5}, "puts the voxels at byte 352.5"),
            ({"vox_offset": 3e38}, "is cut off or damaged: its header claims"),
            ({"scl_slope": np.inf}, "values are scaled by inf"),
            ({"scl_slope": 2, "scl_inter": np.nan}, "values are scaled by 2.0 and nan"),
        ],
    )
    def test_refused(self, make, read, fields, words):
        assert words in refusal(read, make("scan.nii", **fields))

    @pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
    @pytest.mark.parametrize("version", [1, 2])
    def test_a_claim_larger_than_the_file(self, make, read, version, name):
        path = make(name, version=version, dim=[3, 30000, 30000, 5000, 1, 1, 1, 1])
        tracemalloc.start()
        start = time.perf_counter()
        message = refusal(read, path)
        seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert "claims 4.5e+03 GB" in message
        assert seconds < 0.5
        assert peak < 5e6

    def test_66_bytes_that_claim_17_gb(self, make, read):
        path = make("scan.nii.gz", np.zeros((1, 1, 1)), dim=[3, 2000, 2000, 4400, 1, 1, 1, 1])
        assert path.stat().st_size < 300
        assert "claims 17.6 GB, the file has" in refusal(read, path)

    def test_more_than_the_memory(self, make, read, tmp_path):
        # A hole in a file takes no room on the disk but counts as its size.
        path = make("scan.nii", dim=[3, 30000, 30000, 5000, 1, 1, 1, 1])
        os.truncate(path, 352 + 30000 * 30000 * 5000)
        assert "more than a quarter of this computer's" in refusal(read, path)


class TestChannels:
    def test_several_must_be_chosen_from(self, make):
        path = make(stored=np.zeros((7, 9, 5, 4)))
        assert "holds 4 volumes (4-D); expected one. Choose one of them, 0 to 3" in refusal(read_volume, path)
        assert "holds 4 volumes" in refusal(read_label_map, path)
        assert "has no volume 4" in refusal(read_volume, path, channel=4)
        assert "has no volume -1" in refusal(read_volume, path, channel=-1)
        assert "has no volume 1" in refusal(read_volume, make(), channel=1)


@pytest.mark.parametrize("read", READERS)
class TestGeometry:
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_affine_without_place(self, make, read, bad):
        assert "does not say where it lies" in refusal(read, make(srow_x=[bad, 0, 0, 0]), GeometryError)

    def test_singular_affine(self, make, read):
        message = refusal(read, make(srow_x=[0, 1, 0, 0], srow_y=[0, 1, 0, 0], srow_z=[0, 0, 1, 0]), GeometryError)
        assert "singular" in message

    def test_nan_quaternion(self, make, read):
        assert "NaN" in refusal(read, make(codes=(0, 1), quatern_b=np.nan), GeometryError)

    def test_sheared(self, make, affine, read):
        sheared = affine("LPS", 20)
        sheared[:3, 1] += 0.3 * sheared[:3, 0]
        assert "is sheared: its voxel axes are" in refusal(read, make(affine=sheared, codes=(1, 0)), GeometryError)


class TestDamage:
    @pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
    def test_truncation(self, make, name):
        whole = make(name, np.random.default_rng(0).integers(0, 5, (7, 9, 5))).read_bytes()
        for size in [*range(1, len(whole) - 9, 3), *range(len(whole) - 9, len(whole))]:
            path = make.folder / name
            path.write_bytes(whole[:size])
            refusal(read_volume, path)

    def test_every_flipped_bit_of_a_small_packed_label_map(self, make, labels):
        """None may give other labels: it is refused, or harmless (the name and date in the gzip header)."""
        path = make()
        whole = path.read_bytes()
        refused = 0
        for position in range(len(whole)):
            content = bytearray(whole)
            content[position] ^= 1 << position % 8
            path.write_bytes(content)
            try:
                found = read_label_map(path)
            except Seg3dError:
                refused += 1
            else:
                assert np.array_equal(found.data, labels), f"byte {position} changed the labels in silence"
        # All but the eight harmless bytes of the gzip header.
        assert refused >= len(whole) - 10

    def test_garbage_behind_the_end(self, make):
        path = make()
        path.write_bytes(path.read_bytes() + b"garbage")
        assert "fail their check" in refusal(read_volume, path)

    def test_voxels_missing_in_a_whole_gzip_stream(self, make):
        content = make.unpacked(make())
        assert "it ends before its voxels do" in refusal(read_volume, make.raw("short.nii.gz", content[:-1]))

    def test_a_small_file_that_unfolds_for_ever(self, make, monkeypatch):
        # With a quarter of the real memory this test would have to write gigabytes.
        monkeypatch.setattr("napari_seg3d.volumes.nifti.MEMORY_PART", 1e-6)
        path = make("bomb.nii.gz", np.zeros((7, 9, 5)), trailer=bytes(10_000_000))
        assert path.stat().st_size < 20_000
        tracemalloc.start()
        assert "far more than its voxels" in refusal(read_volume, path)
        assert tracemalloc.get_traced_memory()[1] < 3e6
        tracemalloc.stop()


class TestValues:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", ["<f4", ">f8"])
    def test_no_finite_number(self, make, labels, bad, dtype):
        stored = labels.astype(float)
        stored[2, 3, 1:3] = bad
        path = make(stored=stored, dtype=dtype)
        for read in (read_volume, read_label_map):
            assert "has 2 of 315 voxels that are no finite number" in refusal(read, path)
        data = read_volume(path, allow_nonfinite=True).data
        assert np.array_equal(data, stored.astype(np.float32), equal_nan=True)

    def test_beyond_float32(self, make, labels):
        stored = labels.astype(float)
        stored[2, 3, 1] = 1e300
        assert "has 1 of 315 voxels" in refusal(read_volume, make(stored=stored, dtype="<f8"))

    def test_fractions_as_labels(self, make, labels):
        message = refusal(read_label_map, make(stored=labels / 2, dtype="<f4"), LabelError)
        assert "holds fractions such as 0.5; expected integers" in message

    def test_fractions_by_scaling(self, make, labels):
        path = make(stored=labels, slope=1.176)
        assert "because its values are scaled" in refusal(read_label_map, path, LabelError)
        table = LabelTable.from_names({1: "a", 2: "b"})
        assert "because its values are scaled" in refusal(read_label_map, path, LabelError, table=table)

    def test_negative_labels(self, make, labels):
        path = make(stored=labels.astype(int) - 1, dtype="<i2")
        assert "holds the negative value -1" in refusal(read_label_map, path, LabelError)

    def test_enormous_labels(self, make, labels):
        for dtype in ("<i8", "<u8", "<f4", "<f8"):
            path = make(stored=np.where(labels == 4, 2.0**40, labels), dtype=dtype)
            assert "holds the value 1099511627776" in refusal(read_label_map, path, LabelError)

    @pytest.mark.parametrize(
        ("dtype", "mean", "spread"),
        [("<i2", 100, 30), ("<i2", 0, 20), ("<i2", 600, 200), ("<f4", 0, 1), ("<f4", 600, 200), ("<u1", 120, 20)],
    )
    def test_an_image_given_as_labels(self, make, dtype, mean, spread):
        stored = np.random.default_rng(0).normal(mean, spread, (20, 22, 18))
        message = refusal(read_label_map, make(stored=stored, dtype=dtype), LabelError)
        assert "looks like an image, not like labels" in message

    def test_real_images_given_as_labels(self, shared_data):
        images = sorted((shared_data / "Task04_Hippocampus" / "imagesTr").glob("[!.]*.nii.gz"))[:12]
        images += sorted((shared_data / "BraTS2013").glob("*/T1c*.nii.gz"))[:1]
        for path in images:
            assert "looks like an image" in refusal(read_label_map, path, LabelError)

    def test_nibabel_scaled_labels_away(self, make, labels):
        """A mask saved by nibabel under an image's header: 0, 1, 7, 300 come back as 0, 1.18, 7.06, 300."""
        wanted = np.where(labels == 4, 300, np.where(labels == 2, 7, labels.astype(int)))
        header = nibabel.load(make("image.nii")).header
        image = nibabel.Nifti1Image(wanted.astype(np.int16), None, header)
        image.header.set_data_dtype(np.uint8)
        path = Path(make.folder / "mask.nii.gz")
        nibabel.save(image, path)
        table = LabelTable.from_names({1: "a", 7: "b", 300: "c"})
        assert "because its values are scaled" in refusal(read_label_map, path, LabelError, table=table)


def test_the_checksum_is_reached(make):
    """nibabel stops at the last voxel and never sees it: the same flipped bit, two answers."""
    labels = np.zeros((60, 60, 60), np.uint8)
    path = make(stored=labels)
    # Level 0 stores the voxels as they are, so that exactly one of them changes.
    content = bytearray(gzip.compress(make.unpacked(path), 0))
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert np.count_nonzero(np.asanyarray(nibabel.load(path).dataobj)) == 1
    assert "fail their check" in refusal(read_label_map, path)


def test_headers_of_noise(make):
    """Whatever stands in a header: it is read, or refused in words, never a Python error."""
    whole = make("scan.nii").read_bytes()
    rng = np.random.default_rng(5)
    messages = []
    for _ in range(300):
        content = bytearray(whole)
        for position in rng.integers(4, 344, rng.integers(1, 5)):
            content[position] = rng.integers(256)
        path = make.raw("noise.nii", bytes(content))
        try:
            read_label_map(path)
        except Seg3dError as error:
            messages.append(str(error))
    assert 30 < len(messages) < 270
    assert all("noise.nii" in message for message in messages)
