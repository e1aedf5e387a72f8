import json
from itertools import chain, pairwise

import nibabel as nib
import numpy as np
import pytest

from common.cohorts.phantom import cohort as phantom
from common.cohorts.phantom import simulation
from common.cohorts.phantom.cohort import generate
from common.cohorts.phantom.simulation import simulate
from common.cohorts.registry import PHANTOM

SEEDS = range(1, 7)
NCR, ED, ET = (PHANTOM.labels.values[name] for name in ("NCR", "ED", "ET"))


@pytest.fixture(scope="module")
def drawn():
    """Images and label maps of a few patients, and tissue fractions with the images of the same voxels."""
    patients, parts = [], []
    scan = simulation._scans

    def listen(head, tissues):
        parts.append((tissues, scan(head, tissues)))
        return parts[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "_scans", listen)
        patients.extend(simulate(seed) for seed in SEEDS)
    return patients, parts


@pytest.fixture
def patients(drawn):
    return drawn[0]


@pytest.fixture
def parts(drawn):
    return drawn[1]


@pytest.fixture
def datalist(phantom_dir):
    return json.loads((phantom_dir / "datalist.json").read_text())


@pytest.fixture
def blank(monkeypatch):
    """Skip the drawing where only the writing is tested; return the seeds that would have been used."""
    patient = {name: np.zeros((2, 2, 2), np.int16) for name in PHANTOM.modalities}, np.zeros((2, 2, 2), np.uint8)
    seeds = []
    monkeypatch.setattr(phantom, "simulate", lambda seed, **_: seeds.append(seed) or patient)
    return seeds


def median(parts, modality, tissue):
    """Return the median over patients of the median signal of a tissue, relative to white matter."""
    signals = ((images[modality], tissues[tissue] > 0.9, tissues["wm"] > 0.9) for tissues, images in parts)
    return np.median([np.median(image[there]) / np.median(image[white]) for image, there, white in signals])


class TestSimulate:
    def test_does_not_depend_on_numpys_global_state(self, patients):
        np.random.seed(0)
        assert np.array_equal(simulate(SEEDS[1])[0]["t1"], patients[1][0]["t1"])

    def test_patients_differ_in_voxels_and_scanners_units_and_not_in_types(self, patients):
        for (first, one), (second, other) in pairwise(patients):
            assert not np.array_equal(one, other)
            assert all(not np.array_equal(first[name] > 0, second[name] > 0) for name in PHANTOM.modalities)
        for images, label in patients:
            assert tuple(images) == PHANTOM.modalities
            assert {(image.dtype, image.shape) for image in images.values()} == {(np.dtype(np.int16), (80, 80, 52))}
            assert (label.dtype, label.shape) == (np.uint8, (80, 80, 52))
        levels = np.array([[np.median(image[image > 0]) for image in images.values()] for images, _ in patients])
        assert (levels.max(axis=0) > 1.5 * levels.min(axis=0)).all()
        assert levels.min() > 50

    def test_other_grids_hold_the_same_head(self):
        fine, coarse = (simulate(3, *grid)[0]["t1"] > 0 for grid in (((80, 80, 52), 3), ((40, 40, 26), 6)))
        assert coarse.sum() * 8 == pytest.approx(fine.sum(), rel=0.03)

    def test_background_is_zero_in_all_sequences_alike(self, patients):
        for images, label in patients:
            brain = images["t1"] > 0
            assert 0.1 < brain.mean() < 0.25
            assert not brain[[*range(8), *range(-8, 0)]].any()
            assert all(image.min() == 0 and np.array_equal(image > 0, brain) for image in images.values())
            assert not label[~brain].any()

    def test_tumour_has_all_regions_a_plausible_size_and_a_hemisphere_of_either_side(self, patients):
        sides = set()
        for images, label in patients:
            assert set(np.unique(label)) == {0, NCR, ED, ET}
            assert 15 < (3 / 4 / np.pi * 27 * (label > 0).sum()) ** (1 / 3) < 31
            middle = np.argwhere(images["t1"] > 0)[:, 0].mean()
            left = (np.argwhere(label > 0)[:, 0] > middle).mean()
            assert left < 0.1 or left > 0.9
            sides.add(left > 0.5)
        assert len(sides) == 2

    def test_core_rim_and_oedema_are_nested(self, patients):
        for _, label in patients:
            places = {value: np.argwhere(label == value) for value in (NCR, ET, ED)}
            away = [np.linalg.norm(places[value] - places[NCR].mean(axis=0), axis=1).mean() for value in places]
            assert away == sorted(away)
            # The rim closes around the core but for gaps: few neighbours of necrosis are oedema or healthy.
            x, y, z = places[NCR].T
            steps = np.eye(3, dtype=int)
            beside = np.concatenate([label[x + i, y + j, z + k] for i, j, k in (*steps, *-steps)])
            assert np.isin(beside, (NCR, ET)).mean() > 0.85

    def test_no_enhancement_on_request(self):
        images, label = simulate(1, enhancing=False)
        assert set(np.unique(label)) == {0, NCR, ED}
        t1c = images["t1c"]
        assert np.median(t1c[label == NCR]) < np.median(t1c[(t1c > 0) & (label == 0)])


class TestContrasts:
    """Relative to white matter, each region is visible in the sequences where radiologists look for it."""

    @pytest.mark.parametrize(
        ("modality", "tissue", "least", "most"),
        [
            *[("t1c", "ET", 1.3, 9), ("t1", "ET", 0, 1), ("flair", "ED", 1.5, 9), ("t2", "ED", 1.5, 9)],
            *[("t1c", "NCR", 0, 0.8), ("t2", "csf", 2, 9), ("t1", "gm", 0, 0.95), ("t2", "gm", 1.2, 9)],
            *[(modality, "csf", 0, 0.6) for modality in ("t1", "t1c", "flair")],
        ],
    )
    def test_bright_and_dark(self, parts, modality, tissue, least, most):
        assert least < median(parts, modality, tissue) < most

    def test_relative_to_each_other(self, parts):
        for modality in ("t1", "t2", "flair"):
            assert median(parts, modality, "ET") == pytest.approx(median(parts, modality, "ED"), rel=0.15)
        assert median(parts, "flair", "ED") > 1.3 * median(parts, "flair", "gm")
        assert median(parts, "t1", "ED") == pytest.approx(median(parts, "t1", "gm"), rel=0.1)
        assert median(parts, "t2", "csf") > median(parts, "t2", "NCR") > 1.2 * median(parts, "t2", "ED")

    def test_not_all_that_is_bright_is_tumour(self, parts):
        for tissues, images in parts:
            t1c = images["t1c"]
            assert np.median(t1c[tissues["vessel"] > 0.8]) > 1.15 * np.median(t1c[tissues["wm"] > 0.9])
        assert sum((tissues["lesion"] > 0.5).sum() for tissues, _ in parts) > 20
        assert median([p for p in parts if (p[0]["lesion"] > 0.9).any()], "flair", "lesion") > 1.4

    def test_fractions_sum_to_one(self, parts):
        for tissues, _ in parts:
            assert np.allclose(sum(tissues.values()), 1)
            assert min(part.min() for part in tissues.values()) > -1e-12


class TestGenerate:
    def test_files_have_brats_names_geometry_and_say_what_they_are(self, phantom_dir):
        case = phantom_dir / "Phantom_001"
        names = {f"Phantom_001_{kind}.nii.gz" for kind in ("t1", "t1ce", "t2", "flair", "seg")}
        assert {path.name for path in case.iterdir()} == names
        for name in names:
            image = nib.load(case / name)
            assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
            assert np.array_equal(image.affine, [[-3, 0, 0, 0], [0, -3, 0, 237], [0, 0, 3, 0], [0, 0, 0, 1]])
            assert image.header["descrip"].item().decode() == "synthetic phantom, not a patient"
            assert image.header.get_xyzt_units()[0] == "mm"
            assert image.get_data_dtype() == (np.uint8 if "seg" in name else np.int16)
        assert np.array_equal(nib.load(case / "Phantom_001_t1ce.nii.gz").dataobj, simulate(2023001)[0]["t1c"])
        assert "not draw clinical or scientific conclusions" in (phantom_dir / "README.txt").read_text()

    def test_datalist_names_every_file_once_and_one_case_in_eight_does_not_enhance(self, phantom_dir, datalist):
        assert datalist["name"] == datalist["cohort"] == datalist["split"] == "phantom"
        assert datalist["modalities"] == ["t1", "t1c", "t2", "flair"]
        assert (datalist["labels"], datalist["seed"]) == ({"NCR": 1, "ED": 2, "ET": 4}, 2023)
        items = [item for part in ("training", "validation", "test") for item in datalist[part]]
        listed = [path for item in items for path in (*item["image"], item["label"])]
        assert sorted(listed) == sorted(str(path.relative_to(phantom_dir)) for path in phantom_dir.rglob("*.nii.gz"))
        for item in items:
            assert item["modalities"] == datalist["modalities"]
            stem = f"{item['case']}/{item['case']}_"
            assert item["image"] == [f"{stem}{name}.nii.gz" for name in ("t1", "t1ce", "t2", "flair")]
        without = [item["case"] for item in items if ET not in np.unique(nib.load(phantom_dir / item["label"]).dataobj)]
        assert without == ["Phantom_006"]

    @pytest.mark.parametrize(("subjects", "sizes"), [(36, (24, 4, 8)), (3, (1, 1, 1)), (9, (6, 1, 2))])
    def test_split(self, tmp_path, blank, subjects, sizes):
        made = json.loads((generate(tmp_path / "cohort", subjects=subjects) / "datalist.json").read_text())
        cases = [[item["case"] for item in made[part]] for part in ("training", "validation", "test")]
        assert (tuple(map(len, cases)), made["numTraining"]) == (sizes, sizes[0])
        assert len(set(chain(*cases))) == subjects

    def test_empty_folder_is_filled_and_a_finished_one_left_alone(self, tmp_path, blank):
        for seed in (7, 1):
            made = generate(tmp_path, subjects=3, seed=seed)
            assert json.loads((made / "datalist.json").read_text())["seed"] == 7
        assert blank == [7001, 7002, 7003]

    def test_other_content_is_refused_and_kept(self, tmp_path):
        (tmp_path / "mine.txt").write_text("precious")
        with pytest.raises(FileExistsError, match=r"no datalist\.json.*Choose a dataset_dir"):
            generate(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    def test_interrupted_call_leaves_nothing(self, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(phantom, "simulate", fail)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path / "cohort")
        assert not list(tmp_path.iterdir())

    def test_slower_of_two_processes_takes_the_others_cohort(self, tmp_path, monkeypatch, blank):
        folder = tmp_path / "cohort"
        write = phantom._write_cohort

        def overtaken(draft, subjects, seed, with_split):
            monkeypatch.setattr(phantom, "_write_cohort", write)
            generate(folder, subjects, seed=1)
            write(draft, subjects, seed, with_split)

        monkeypatch.setattr(phantom, "_write_cohort", overtaken)
        assert generate(folder, subjects=3, seed=2) == folder
        assert json.loads((folder / "datalist.json").read_text())["seed"] == 1
        assert [path.name for path in tmp_path.iterdir()] == ["cohort"]

    def test_what_is_refused(self, tmp_path):
        (tmp_path / "file").touch()
        installed = tmp_path / "site-packages" / "a" / "cohort"
        for folder, subjects, kind, why in (
            (tmp_path / "file" / "cohort", 9, PermissionError, "cannot write there"),
            (installed, 9, PermissionError, "lies within an installed package"),
            (tmp_path, 2, ValueError, "expected at least 3"),
        ):
            with pytest.raises(kind, match=why):
                generate(folder, subjects=subjects)
        assert [*tmp_path.iterdir()] == [tmp_path / "file"]
