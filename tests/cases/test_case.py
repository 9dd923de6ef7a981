import numpy as np
import pytest

from napari_seg3d.cases.case import Case, CaseFiles, ImageFile
from napari_seg3d.errors import DatasetError, GeometryError, LabelError
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume

from .conftest import SHAPE, image, labels, oblique_affine, write_nifti


def shifted(mm: float) -> np.ndarray:
    affine = oblique_affine()
    affine[2, 3] += mm
    return affine


@pytest.fixture
def files(tmp_path) -> CaseFiles:
    paths = {name: write_nifti(tmp_path / f"{name}.nii.gz", image(i)) for i, name in enumerate(("FLAIR", "T1c"))}
    truth = write_nifti(tmp_path / "seg.nii.gz", labels(1, 3))
    table = LabelTable.from_names({1: "oedema", 3: "enhancing tumour"})
    return CaseFiles("p1", {name: ImageFile(path) for name, path in paths.items()}, truth, table=table)


def with_mask(files: CaseFiles, path) -> CaseFiles:
    return CaseFiles(files.id, files.modalities, files.truth, path, files.table)


def test_all_files_come_together_on_one_grid(files):
    case = files.load()
    assert (case.id, list(case.modalities), case.mask, case.files) == ("p1", ["FLAIR", "T1c"], None, files)
    assert case.geometry == Geometry(SHAPE, oblique_affine().astype(np.float32))
    np.testing.assert_array_equal(case.modalities["T1c"].data, image(1))
    assert case.truth.table[3].name == "enhancing tumour"
    assert case.load() is case


def test_a_correction_is_preferred(files, tmp_path):
    corrected = write_nifti(tmp_path / "v001.nii.gz", labels(1, 1))
    newer = CaseFiles("p1", files.modalities, files.truth, table=files.table, corrected=corrected)
    assert newer.best_truth == corrected
    np.testing.assert_array_equal(newer.load().truth.data, labels(1, 1))


@pytest.mark.parametrize("high", [1.0, 0.99999997, 255.0])
def test_masks_of_any_two_values(files, tmp_path, high):
    inside = labels(1) > 0
    path = write_nifti(tmp_path / "mask.nii.gz", inside * high)
    mask = with_mask(files, path).load().mask
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, inside)


def test_an_image_is_no_mask(files, tmp_path):
    with pytest.raises(LabelError, match=r"one other value in the mask mask\.nii\.gz"):
        with_mask(files, write_nifti(tmp_path / "mask.nii.gz", image(5))).load()


def test_a_mask_on_another_grid_is_refused(files, tmp_path):
    path = write_nifti(tmp_path / "mask.nii.gz", labels(1), shifted(30))
    with pytest.raises(GeometryError, match=r"p1: the mask .* 30 mm apart"):
        with_mask(files, path).load()


@pytest.mark.parametrize("name", ["T1c", "truth"])
def test_a_shifted_image_is_refused(files, tmp_path, name):
    path = write_nifti(tmp_path / "shifted.nii.gz", labels(1) if name == "truth" else image(), shifted(1.5))
    changed = (
        CaseFiles("p1", files.modalities, path)
        if name == "truth"
        else CaseFiles("p1", {**files.modalities, "T1c": ImageFile(path)})
    )
    with pytest.raises(
        GeometryError, match=rf"{name} does not lie on the grid of FLAIR \(the grids lie up to 1.5 mm apart\)"
    ):
        changed.load()


def test_rounding_of_headers_is_no_shift(files, tmp_path):
    path = write_nifti(tmp_path / "t2.nii.gz", image(2), shifted(0.001))
    assert CaseFiles("p1", {**files.modalities, "T2": ImageFile(path)}).load().modalities.keys() == {
        "FLAIR",
        "T1c",
        "T2",
    }


def test_other_shapes_are_named():
    grid = Geometry.with_spacing((4, 5, 6), (1, 2, 3))
    other = Geometry.with_spacing((4, 5, 7), (1, 2, 3))
    volume = Volume(np.zeros(grid.shape, np.float32), grid)
    with pytest.raises(GeometryError, match="shape 4×5×6 against 4×5×7"):
        Case("a", {"T1": volume}, LabelMap(np.zeros(other.shape, np.uint8), other))
    with pytest.raises(GeometryError, match="mask has shape"):
        Case("a", {"T1": volume}, mask=np.ones(other.shape, bool))
    with pytest.raises(DatasetError, match="no image"):
        Case("a", {})
