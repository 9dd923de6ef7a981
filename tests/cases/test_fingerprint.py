import json
from dataclasses import replace

import numpy as np
import pytest

from napari_seg3d.cases.case import Case, CaseFiles
from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.cases.fingerprint import Fingerprint, Intensities, fingerprint, foreground_mask, ras_axes
from napari_seg3d.cases.labels import Region
from napari_seg3d.errors import DatasetError
from napari_seg3d.events import Failed, Finished, Progress, result_of
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume


def grid(shape, spacing, orientation: str) -> Geometry:
    """A straight grid whose axes run as the three letters say."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (code, mm) in enumerate(zip(orientation, spacing, strict=True)):
        row = next(i for i, pair in enumerate(("RL", "AP", "SI")) if code in pair)
        affine[row, axis] = mm if code in "RAS" else -mm
    return Geometry(shape, affine)


def block_case(case_id="a", orientation="PIR", background=-3.5, seed=0) -> Case:
    """A block of tissue of 6×9×5 voxels with a hole, in a constant background; a label of 2×3×4 voxels."""
    geometry = grid((12, 16, 11), (1.0, 1.5, 3.0), orientation)
    rng = np.random.default_rng(seed)
    data = np.full(geometry.shape, background, np.float32)
    data[3:9, 4:13, 2:7] = rng.normal(50, 5, (6, 9, 5))
    data[5, 7, 4] = background
    truth = np.zeros(geometry.shape, np.uint8)
    truth[4:6, 5:8, 2:6] = 2
    table = LabelTable.from_names({1: "anterior", 2: "posterior"})
    return Case(case_id, {"T1": Volume(data, geometry)}, LabelMap(truth, geometry, table))


class TestForeground:
    @pytest.mark.parametrize("background", [0.0, -3.5, 17.0])
    def test_constant_background_of_any_value(self, background):
        mask = foreground_mask(block_case(background=background))
        expected = np.zeros((12, 16, 11), bool)
        expected[3:9, 4:13, 2:7] = True
        np.testing.assert_array_equal(mask, expected)  # the hole inside is filled

    def test_any_modality_makes_foreground(self):
        case = block_case()
        more = np.full(case.geometry.shape, 9, np.int16)
        more[0:2, 0, 0] = 4
        mask = foreground_mask(replace(case, modalities={**case.modalities, "T2": Volume(more, case.geometry)}))
        assert mask.sum() == 6 * 9 * 5 + 2
        assert mask[0:2, 0, 0].all()

    def test_noisy_air_is_no_constant(self):
        case = block_case()
        noise = np.random.default_rng(0).normal(size=case.geometry.shape)
        assert foreground_mask(replace(case, modalities={**case.modalities, "T2": Volume(noise, case.geometry)})).all()

    def test_the_cases_own_mask_wins_unless_empty(self):
        case = block_case()
        own = np.zeros(case.geometry.shape, bool)
        assert foreground_mask(replace(case, mask=own)).sum() == 6 * 9 * 5
        own[1, 2, 3] = True
        np.testing.assert_array_equal(foreground_mask(replace(case, mask=own)), own)

    def test_a_constant_volume_is_all_foreground(self):
        geometry = Geometry.with_spacing((3, 4, 5))
        assert foreground_mask(Case("c", {"T1": Volume(np.zeros(geometry.shape, np.uint8), geometry)})).all()

    @pytest.mark.real_data
    def test_brats_background_is_negative(self, shared_data):
        case = open_dataset(shared_data / "BraTS2013").cases[0].load()
        found = foreground_mask(replace(case, mask=None))
        assert case.modalities["FLAIR"].data[0, 0, 0] < 0
        assert np.count_nonzero(found != case.mask) < 0.001 * np.count_nonzero(case.mask)


class TestFingerprint:
    def test_sizes_are_in_one_order_whatever_the_file_says(self):
        # P, I, R: the file's axes are front-back (1 mm), up-down (1.5 mm), left-right (3 mm).
        facts = result_of(fingerprint([block_case()]))
        case = facts.cases[0]
        assert (case.shape, case.orientation) == ((12, 16, 11), "PIR")
        assert case.ras_shape == facts.median_shape == (11, 12, 16)
        assert case.ras_spacing_mm == facts.median_spacing_mm == (3.0, 1.0, 1.5)
        assert case.cropped_shape == facts.median_cropped_shape == (5, 6, 9)
        assert case.foreground_fraction == pytest.approx(6 * 9 * 5 / (12 * 16 * 11))

    @pytest.mark.parametrize(
        ("codes", "axes"), [("RAS", (0, 1, 2)), ("LPI", (0, 1, 2)), ("PIR", (2, 0, 1)), ("SLA", (1, 2, 0))]
    )
    def test_axes(self, codes, axes):
        assert ras_axes(codes) == axes

    def test_labels(self):
        facts = result_of(fingerprint([block_case("a"), replace(block_case("b"), truth=None)]))
        assert facts.cases[0].label_volumes_ml == pytest.approx({2: 2 * 3 * 4 * 4.5 / 1000})
        assert [case.labelled for case in facts.cases] == [True, False]
        assert facts.median_volumes_ml == pytest.approx({1: 0.0, 2: 0.108})
        assert [label.name for label in facts.table] == ["anterior", "posterior"]
        assert facts.regions is None

    def test_labels_that_nobody_named_are_in_the_table(self):
        case = block_case()
        truth = LabelMap(
            np.where(case.truth.data > 0, 5, 0).astype(np.uint8), case.geometry, LabelTable.from_values((5,))
        )
        facts = result_of(fingerprint([block_case("b"), replace(case, truth=truth)]))
        assert facts.table.values == (1, 2, 5)

    def test_regions_follow_from_names_or_are_told(self, tiny_case):
        told = (Region.named("all", (1, 2)),)
        assert [r.name for r in result_of(fingerprint([tiny_case(0)])).regions] == ["whole tumour", "enhancing tumour"]
        assert result_of(fingerprint([tiny_case(0)], regions=told)).regions == told

    def test_intensities_are_those_of_the_foreground(self):
        facts = result_of(fingerprint([block_case(seed=seed) for seed in range(3)]))
        inside = block_case(seed=0).modalities["T1"].data[3:9, 4:13, 2:7]
        stats = facts.cases[0].intensities["T1"]
        assert stats == Intensities.of(inside)
        assert stats.minimum == -3.5  # the filled hole
        assert stats.median == pytest.approx(float(np.median(inside)))
        assert stats.low < 40 < stats.high < 70
        # Three cases weigh the same: the median over all is near that of the distribution.
        assert facts.intensities["T1"].median == pytest.approx(50, abs=0.7)

    def test_no_case_outweighs_the_others(self):
        geometry = Geometry.with_spacing((40, 41, 30))
        large = Case("large", {"T1": Volume(np.full(geometry.shape, 10, np.int16), geometry)})
        small_grid = Geometry.with_spacing((3, 4, 5))
        small = Case("small", {"T1": Volume(np.full(small_grid.shape, 20, np.int16), small_grid)})
        assert result_of(fingerprint([large, small])).intensities["T1"].mean == 15

    def test_events(self):
        events = list(fingerprint([block_case("a"), block_case("b")]))
        assert [(e.done, e.total) for e in events[:-1] if isinstance(e, Progress)] == [(0, 2), (1, 2), (2, 2)]
        assert isinstance(events[-1], Finished)

    def test_different_modalities_end_in_words(self):
        other = replace(block_case("b"), modalities={"T2": block_case().modalities["T1"]})
        *_, last = fingerprint([block_case("a"), other])
        assert isinstance(last, Failed)
        assert last.message == "Expected T1 in every case, as a has; b has T2. Leave it out or complete it."

    def test_no_cases(self):
        *_, last = fingerprint([])
        assert isinstance(last, Failed)
        assert "at least one case" in last.message

    def test_a_damaged_file_is_named(self, tmp_path):
        path = tmp_path / "broken.nii.gz"
        path.write_bytes(b"no nifti")
        from napari_seg3d.cases.case import ImageFile

        *_, last = fingerprint([CaseFiles("a", {"T1": ImageFile(path)})])
        assert isinstance(last, Failed)
        assert "broken.nii.gz" in last.message

    @pytest.mark.real_data
    def test_hippocampus(self, shared_data):
        facts = result_of(fingerprint(open_dataset(shared_data / "Task04_Hippocampus").cases))
        assert (facts.count, facts.median_shape, facts.median_spacing_mm) == (100, (35, 50, 36), (1.0, 1.0, 1.0))
        # One case's intensities are a thousand times another's.
        highest = [case.intensities["MRI"].maximum for case in facts.cases]
        assert max(highest) > 1000 * min(highest)


class TestJson:
    def facts(self) -> Fingerprint:
        return result_of(fingerprint([block_case("a"), replace(block_case("b"), truth=None)]))

    def test_there_and_back(self, tiny_case):
        for facts in (self.facts(), result_of(fingerprint([tiny_case(0)]))):
            assert Fingerprint.from_json(facts.to_json()) == facts

    @pytest.mark.parametrize("where", [(), ("cases", 0), ("intensities", "T1"), ("table",)])
    def test_unknown_keys_are_refused(self, where):
        content = json.loads(self.facts().to_json())
        part = content
        for key in where:
            part = part[key]
        part["colour"] = 1
        with pytest.raises(DatasetError, match="colour"):
            Fingerprint.from_json(json.dumps(content))

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"modalities": 3}'])
    def test_other_things_are_refused(self, text):
        with pytest.raises(DatasetError, match="fingerprint as JSON"):
            Fingerprint.from_json(text)
