from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.cases.fingerprint import foreground_mask
from napari_seg3d.cases.labels import regions_for
from napari_seg3d.cases.phantoms import (
    CORE,
    ENHANCING,
    FIELD_OF_VIEW_MM,
    MODALITIES,
    OEDEMA,
    brain_phantom,
    write_phantom_dataset,
)
from napari_seg3d.events import Failed, Finished, Saved


@pytest.fixture(scope="module")
def studies():
    return [brain_phantom(seed) for seed in range(6)]


def best_threshold_dice(image: np.ndarray, truth: np.ndarray) -> float:
    """The best Dice that any threshold, from above or below, reaches."""
    best = 0.0
    for values in (image.ravel().astype(float), -image.ravel().astype(float)):
        inside = np.cumsum(truth.ravel()[np.argsort(-values, kind="stable")])
        best = max(best, float((2 * inside / (np.arange(1, truth.size + 1) + truth.sum())).max()))
    return best


def test_the_same_seed_gives_the_same_voxels_and_another_does_not(studies):
    again = brain_phantom(3)
    assert again.geometry == studies[3].geometry
    np.testing.assert_array_equal(again.truth.data, studies[3].truth.data)
    for name in MODALITIES:
        np.testing.assert_array_equal(again.modalities[name].data, studies[3].modalities[name].data)
    overlap = studies[3].truth.data.astype(bool) & studies[4].truth.data.astype(bool)
    assert overlap.sum() < 0.8 * (studies[3].truth.data > 0).sum()


def test_the_grid_is_awkward(studies):
    for seed, case in enumerate(studies):
        geometry = case.geometry
        assert geometry.orientation == ("LPI" if seed % 2 else "LPS")
        assert (np.linalg.det(geometry.affine_voxel_to_world[:3, :3]) < 0) == bool(seed % 2)
        assert geometry.is_oblique
        assert not geometry.is_sheared
        assert len({round(mm, 2) for mm in geometry.spacing_mm}) == 3
        np.testing.assert_allclose(np.multiply(geometry.spacing_mm, geometry.shape), FIELD_OF_VIEW_MM)


def test_labels_are_nested_and_none_is_tiny(studies):
    for case in studies:
        assert [label.name for label in case.truth.table] == ["oedema", "non-enhancing tumour", "enhancing tumour"]
        assert [region.values for region in regions_for(case.truth.table)] == [(1, 2, 3), (2, 3), (3,)]
        assert case.truth.volume_ml(OEDEMA) > 25
        assert case.truth.volume_ml(ENHANCING) > 6
        assert case.truth.volume_ml(CORE) > 1.5
        # The necrotic core touches hardly any healthy tissue, the tumour core hardly any but oedema.
        around = ndimage.binary_dilation(case.truth.data == CORE) & (case.truth.data != CORE)
        assert np.mean(case.truth.data[around] >= OEDEMA) > 0.99


def test_contrasts_are_those_of_a_tumour(studies):
    """Oedema is bright in FLAIR, the rim in T1c, and the core is dark in T1, each against the tissue around."""
    for case in studies:
        truth = case.truth.data
        near = ndimage.binary_dilation(truth > 0, iterations=4) & ~ndimage.binary_dilation(truth > 0)
        flair, t1, t1c, _ = (case.modalities[name].data for name in MODALITIES)
        assert np.median(flair[truth == OEDEMA]) > 1.2 * np.median(flair[near])
        assert np.median(t1c[truth == ENHANCING]) > 1.2 * np.median(t1c[near])
        assert np.median(t1[truth == CORE]) < np.median(t1[near])


def test_no_threshold_finds_the_tumour(studies):
    best = {
        name: np.mean([best_threshold_dice(case.modalities[name].data, case.truth.data > 0) for case in studies])
        for name in MODALITIES
    }
    assert max(best.values()) < 0.6
    assert best["FLAIR"] == max(best.values())


def test_air_is_noisy_as_scanners_make_it(studies):
    for case in studies:
        for volume in case.modalities.values():
            assert volume.data.dtype == np.int16
            assert volume.data.min() >= 0
            corner = volume.data[:4, :4, :4].astype(float)
            # Rayleigh: the mean is 1.91 standard deviations.
            assert 1.4 < corner.mean() / corner.std() < 2.6
        assert foreground_mask(case).all()


def test_noise_and_bias_can_be_left_out():
    clean = brain_phantom(1, noise=0, bias=0)
    assert clean.modalities["T1"].data[:4, :4, :4].max() == 0
    np.testing.assert_array_equal(clean.truth.data, brain_phantom(1).truth.data)


def test_another_grid_shows_the_same_head():
    coarse, fine = brain_phantom(2, shape=(36, 40, 16)), brain_phantom(2)
    assert coarse.modalities["T1"].data.shape == (36, 40, 16)
    for label in (OEDEMA, ENHANCING):
        assert coarse.truth.volume_ml(label) == pytest.approx(fine.truth.volume_ml(label), rel=0.15)


class TestWriting:
    def test_a_written_study_reads_back(self, tmp_path):
        folder = tmp_path / "phantoms"
        *events, last = write_phantom_dataset(folder, 2, seed=5, shape=(20, 24, 10))
        assert isinstance(last, Finished)
        assert last.result == folder
        assert [event.path.name for event in events if isinstance(event, Saved)] == ["brain_001", "brain_002"]
        dataset = open_dataset(folder)
        assert (dataset.modalities, len(dataset.labelled), dataset.problems) == (MODALITIES, 2, ())
        assert [label.name for label in dataset.table] == ["oedema", "non-enhancing tumour", "enhancing tumour"]
        assert [region.values for region in dataset.regions] == [(1, 2, 3), (2, 3), (3,)]
        cases = [files.load() for files in dataset]
        assert all(set(np.unique(case.truth.data)) == {0, 1, 2, 3} for case in cases)
        assert not np.array_equal(cases[0].truth.data, cases[1].truth.data)

    def test_other_seeds_share_no_study(self, tmp_path):
        for seed in (0, 1):
            *_, last = write_phantom_dataset(tmp_path / str(seed), 2, seed, shape=(10, 12, 6))
            assert isinstance(last, Finished)
        contents = {path.read_bytes() for path in tmp_path.rglob("*_T1.nii.gz")}
        assert len(contents) == 4

    def test_nothing_is_written_over(self, tmp_path):
        list(write_phantom_dataset(tmp_path, 1, shape=(10, 12, 6)))
        before = {path: path.read_bytes() for path in Path(tmp_path).rglob("*.nii.gz")}
        *_, last = write_phantom_dataset(tmp_path, 1, seed=9, shape=(10, 12, 6))
        assert isinstance(last, Failed)
        assert "exists" in last.message
        assert {path: path.read_bytes() for path in Path(tmp_path).rglob("*.nii.gz")} == before

    def test_a_place_that_cannot_be_written_to(self, tmp_path):
        (tmp_path / "file").touch()
        *_, last = write_phantom_dataset(tmp_path / "file" / "inside", 1)
        assert isinstance(last, Failed)
        assert "cannot be made" in last.message
        assert "defect" not in last.message
