"""Label maps of other programs: how files are found, what is measured, refused, and whose values are doubted.

And several data sets as one datalist: patients, sources and the meaning of labels.
"""

import re
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from layouts import touch_cases, write_cases
from refusals import refused
from scipy import ndimage

from common.cohorts import get_cohort, prepare
from common.cohorts.cohort import Cohort
from common.cohorts.registry import patient_of
from common.cohorts.splits import PARTS
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import Evaluation
from common.modalities import IGNORED, LabelSet
from common.transforms import LoadSubjectd
from mmb.experiments.comparison.class_order import ClassOrder, other_axes
from mmb.experiments.comparison.compare import compare_methods
from mmb.experiments.comparison.label_maps import evaluate_label_maps
from mmb.experiments.joining import folders_of, join
from mmb.verbs.join import join as join_verb

LPS = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1.5, 0], [0, 0, 0, 1]])
SHAPE = (12, 10, 8)
BRATS = get_cohort("brats2020")


def label_map(seed: int) -> np.ndarray:
    """Return a tumour of nested parts with BraTS's label values."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.5)
    ranks = noise.ravel().argsort().argsort().reshape(SHAPE) / noise.size
    return np.select([ranks > 0.97, ranks > 0.94, ranks > 0.85], [4, 1, 2]).astype(np.uint8)


def write(path: Path, label: np.ndarray, affine: np.ndarray = LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(label, affine), path)
    return path


@pytest.fixture
def reference(tmp_path) -> Path:
    """A folder with the label maps of two cases."""
    for seed, case in enumerate(("a", "b")):
        write(tmp_path / "reference" / f"{case}.nii.gz", label_map(seed))
    return tmp_path / "reference"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of predictions from all modalities: right for case a, shifted by a voxel for case b."""
    write(tmp_path / "predictions" / "a.nii.gz", label_map(0))
    write(tmp_path / "predictions" / "b.nii.gz", np.roll(label_map(1), 1, axis=0))
    return tmp_path / "predictions"


def evaluate(folder: Path, reference: Path, cohort: Cohort = BRATS, **conventions) -> Evaluation:
    return evaluate_label_maps("method", folder, reference, cohort, Conventions(**conventions))


def dice(evaluation) -> dict[tuple[str, str, str], float]:
    rows = evaluation.results.query("metric == 'dice'")
    return rows.set_index(["modalities", "case", "region"])["value"].to_dict()


class TestValues:
    def test_against_numpy(self, folder, reference):
        found = evaluate(folder, reference)
        values = dice(found)
        for region, classes in {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}.items():
            truth = np.isin(label_map(1), classes)
            moved = np.roll(truth, 1, axis=0)
            assert values["t1+t1c+t2+flair", "a", region] == 1
            expected = 2 * (truth & moved).sum() / (truth.sum() + moved.sum())
            assert values["t1+t1c+t2+flair", "b", region] == pytest.approx(expected, abs=1e-12)
        assert len(values) == 2 * 3
        assert (found.name, found.cohort, found.modalities) == ("method", "brats2020", ("t1", "t1c", "t2", "flair"))
        assert found.regions == ("WT", "TC", "ET")

    def test_distances_and_volumes_are_in_the_units_of_the_file(self, folder, reference):
        truth, prediction = np.zeros((2, *SHAPE), np.uint8)
        truth[3, 3, 3] = prediction[3, 3, 5] = prediction[3, 4, 5] = 4  # planes are 1.5 mm apart
        write(reference / "a.nii.gz", truth)
        write(folder / "a.nii.gz", prediction)
        rows = evaluate(folder, reference).results.query("case == 'a' and region == 'ET'")
        values = rows.set_index("metric")["value"]
        assert values["reference_volume"] == pytest.approx(1.5e-3)
        assert (values["volume"], values["hd"]) == (pytest.approx(3e-3), pytest.approx(10**0.5))

    def test_other_modalities_and_regions(self, tmp_path):
        labels = LabelSet({"CSF": 10, "GM": 150, "WM": 250}, {"GM": ("GM",), "WM": ("WM",)})
        cohort = Cohort("iseg", ("t1", "t2"), labels)
        label = np.random.default_rng(0).choice([0, 10, 150, 250], SHAPE).astype(np.int16)
        write(tmp_path / "reference" / "a.nii.gz", label)
        for subset in ("t1+t2", "t1", "t2"):
            write(tmp_path / "maps" / subset / "a.nii.gz", label)
        found = evaluate(tmp_path / "maps", tmp_path / "reference", cohort=cohort)
        assert (found.subsets, set(dice(found).values())) == (["t1", "t2", "t1+t2"], {1.0})
        assert list(found.results["modalities"].unique()) == found.subsets  # smaller subsets first, as everywhere


class TestFiles:
    def test_hidden_and_other_files_do_not_count(self, folder, reference):
        write(folder / "._a.nii.gz", label_map(5))  # macOS
        (folder / "progress.json").write_text("{}")
        assert len(dice(evaluate(folder, reference))) == 6

    @pytest.mark.parametrize("suffix", ["mha", "nrrd"])
    def test_other_formats(self, tmp_path, reference, suffix):
        """ITK writes (x, y, z) in LPS, which describes the same grid as the NIfTI files here."""
        (tmp_path / "maps").mkdir()
        for seed, case in enumerate(("a", "b")):
            image = itk.image_from_array(np.ascontiguousarray(label_map(seed).T))
            image.SetSpacing([1.0, 1.0, 1.5])
            image.SetOrigin([0.0, -239.0, 0.0])
            itk.imwrite(image, str(tmp_path / "maps" / f"{case}.{suffix}"))
        assert set(dice(evaluate(tmp_path / "maps", reference)).values()) == {1.0}

    def test_references_may_be_the_folder_of_the_cohort(self, tmp_path, folder):
        """There are images next to the labels, and BraTS 2020's case 355, whose label has an irregular name."""
        root = tmp_path / "BraTS2020"
        for seed, (case, label) in enumerate({"a": "a_seg", "b": "W39_1998.09.19_Segm"}.items()):
            for modality in ("t1", "t1ce", "t2", "flair"):
                write(root / case / f"{case}_{modality}.nii.gz", np.full(SHAPE, 0.5 + seed, np.float32))
            write(root / case / f"{label}.nii.gz", label_map(seed))
        values = dice(evaluate(folder, root))
        assert {case for _, case, _ in values} == {"a", "b"}
        assert values["t1+t1c+t2+flair", "a", "WT"] == 1


def one_voxel(value: float) -> np.ndarray:
    label = label_map(0).astype(np.float32)
    label[0, 0, 0] = value
    return label


A, B = "predictions/a.nii.gz", "predictions/b.nii.gz"
OTHER_ET = np.where(label_map(0) == 4, 3, label_map(0))
CHANNELS = np.stack([label_map(0) > 0] * 3, axis=-1).astype(np.uint8)


class TestBadInput:
    @pytest.mark.parametrize(
        ("file", "label", "affine", "said"),
        [
            (B, label_map(1)[:-1], LPS, "on another grid than its reference {root}/reference/b.nii.gz (shape 11x10"),
            (B, label_map(1), LPS @ np.diag([1, 1, 1.2, 1]), "up to 2.10 mm away). Label maps are not resampled"),
            (B, label_map(1), np.eye(4), "(voxels up to 240"),  # as if the header had been lost
            (A, OTHER_ET, LPS, "label values [3] are not defined in this cohort. It has 0, 1 (NCR), 2 (ED)"),
            ("reference/a.nii.gz", label_map(0).astype(np.int16) - 1, LPS, "label values [-1, 3] are not defined"),
            *((A, one_voxel(v), LPS, f"holds {v:g}; expected a label map") for v in (0.5, np.nan, np.inf, 1e6, -1e-3)),
            (A, CHANNELS, LPS, "shape (12, 10, 8, 3); expected a label map (X, Y, Z)"),
        ],
    )
    def test_files(self, tmp_path, folder, reference, file, label, affine, said):
        path = write(tmp_path / file, label, affine)
        with pytest.raises(ValueError, match=f"^{path}: .*{re.escape(said.format(root=tmp_path))}"):
            evaluate(folder, reference)

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            (["x.nii.gz", "x.nii"], "Case x occurs twice, as {maps}/x.nii and {maps}/x.nii.gz"),
            (["t1/a.nii.gz", "t1_gadolinium/a.nii.gz"], "{maps}/t1_gadolinium: not named after a subset of t1, t1c"),
            (["t1/a.nii.gz", "b.nii.gz"], "{maps}/b.nii.gz: not named after a subset of t1, t1c"),
        ],
    )
    def test_names(self, tmp_path, reference, files, said):
        for name in files:
            write(tmp_path / "maps" / name, label_map(0))
        with pytest.raises(ValueError, match=re.escape(said.format(maps=tmp_path / "maps"))):
            evaluate(tmp_path / "maps", reference)

    def test_what_is_there_instead(self, tmp_path, reference):
        """An archive, or label maps in a folder below, is named; suffixes may be upper case."""
        write(tmp_path / "nested" / "run" / "a.nii.gz", label_map(0))
        (tmp_path / "packed").mkdir()
        (tmp_path / "packed" / "pred.ZIP").touch()
        for name, said in (("nested", "The first of 1 below it is "), ("packed", "1 file not read (.zip): unpack it")):
            with pytest.raises(FileNotFoundError, match=re.escape(said)):
                evaluate(tmp_path / name, reference)
        write(tmp_path / "upper" / "a.nii.gz", label_map(0)).rename(tmp_path / "upper" / "a.NII.GZ")
        assert [*evaluate(tmp_path / "upper", reference).results["case"].unique()] == ["a"]


def test_cases_are_those_with_a_prediction_and_need_a_reference(tmp_path, reference):
    for name in ("t2/a", "t2/b", "t1/a"):
        write(tmp_path / "maps" / f"{name}.nii.gz", label_map(0))
    write(reference / "c.nii.gz", label_map(2))  # for example from the training split
    assert {key[:2] for key in dice(evaluate(tmp_path / "maps", reference))} == {("t1", "a"), ("t2", "a"), ("t2", "b")}
    write(tmp_path / "maps" / "t2" / "BRATS_001.nii.gz", label_map(0))
    with pytest.raises(ValueError, match=r"^method: cases without a reference: BRATS_001; .* such as a, b"):
        evaluate(tmp_path / "maps", reference)


BRATS_2023 = get_cohort("brats2023").labels  # 1 NCR, 2 ED, 3 ET


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(24, 24, 24)), 3)
    return np.digitize(noise / noise.max(), [0.1, 0.4, 0.7])


def doubt(prediction: np.ndarray, reference: np.ndarray, labels=BRATS_2023) -> str | None:
    order = ClassOrder(labels)
    order.add(prediction, reference)
    return order.doubt()


@pytest.mark.parametrize(
    ("meant", "words"),
    [
        ([0, 2, 1, 3], "1 meant ED and 2 meant NCR: "),  # nnU-Net's conversion of BraTS
        ([0, 2, 3, 1], "1 meant ET and 2 meant NCR and 3 meant ED: "),
    ],
)
def test_another_order(truth, meant, words):
    said = doubt(np.array(meant)[truth], truth)
    assert words in said
    assert "to 100.0. The cohort has 1 NCR, 2 ED, 3 ET" in said


@pytest.mark.parametrize(("right", "said"), [(455, False), (445, True)])
def test_another_order_has_to_fit_better_by_a_tenth(right, said):
    reference = np.repeat([1, 2], 1000)
    prediction = np.where(np.tile(np.arange(1000), 2) < right, reference, 3 - reference)
    assert (doubt(prediction, reference) is not None) is said


def test_the_overlap_is_that_of_each_region(truth):
    regions = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    prediction = np.roll(np.array([0, 2, 1, 3])[truth], 1, axis=0)
    said = doubt(prediction, truth)
    for name, classes in regions.items():
        dice = []
        for values in (prediction, np.array([0, 2, 1, 3])[prediction]):
            masks = np.isin(values, classes), np.isin(truth, classes)
            dice.append(200 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum()))
        assert f"{name} {dice[0]:.1f} to {dice[1]:.1f}" in said


def test_right_and_poor_maps(truth):
    noise = np.random.default_rng(1).integers(1, 4, truth.shape)
    confused = np.where(np.isin(truth, (1, 2)), (noise > 1) + 1, truth)  # NCR and ED by chance
    poor = np.roll(truth, 3, axis=1), confused, np.where(truth == 1, 0, truth), np.zeros_like(truth)
    for prediction in (truth, *poor):
        assert doubt(prediction, truth) is None


def test_voxels_without_a_reference_do_not_count(truth):
    assert doubt(np.where(truth == 3, 1, truth), np.where(truth == 3, IGNORED, truth)) is None


SOURCES = ("ucsf_pdgm", "upenn_gbm", "mu_glioma_post", "brats_africa", "brats_ped")
GLIOMA = get_cohort("glioma")


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    return {name: touch_cases(tmp_path / "data" / name, name, patients=9) for name in SOURCES}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("phantoms")
    return {name: write_cases(root / name, name, patients=3) for name in SOURCES}


@pytest.mark.parametrize("split", [None, "cv1of3", "cv2of3", "cv3of3"])
def test_every_part_has_every_source_and_no_patient_is_in_two(folders, split):
    parts, _ = join(folders, GLIOMA, split)
    patients = [{patient_of(item) for item in parts[part]} for part in PARTS]
    assert sum(map(len, patients)) == len(set.union(*patients))
    assert all({item["source"] for item in parts[part]} == set(SOURCES) for part in PARTS)


@pytest.mark.parametrize(
    ("cohort", "cavity"), [("glioma", 4), ("glioma_cavity_background", 0), ("glioma_cavity_ignored", IGNORED)]
)
def test_labels_are_read_by_meaning_from_the_written_datalist(phantoms, tmp_path, capsys, cohort, cavity):
    path, folders = tmp_path / "joined.json", phantoms
    join_verb(str(path), *(f"{name}={folder}" for name, folder in folders.items()), cohort=cohort)
    base = Path(capsys.readouterr().out.split("--dataset_dir ")[1].split()[0])
    parts, target = prepare(cohort, base, datalist=path), get_cohort(cohort).labels
    read, merged = LoadSubjectd(cohort, ["flair"]), {"NET": "NCR", "CC": "NCR"}
    seen = set()
    for item in (item for part in PARTS for item in parts[part]):
        source = get_cohort(item["source"]).labels
        stored = np.asarray(nib.load(item["label"]).dataobj).round().astype(int)
        label = read(item)["label"][0].numpy()
        for name, value in source.values.items():
            expected = cavity if name == "RC" else target.values[merged.get(name, name)]
            assert (label[stored == value] == expected).all()
            seen |= {(name, expected)} if (stored == value).any() else set()
        assert (label[stored == 0] == 0).all()
    assert seen == {("NCR", 1), ("ED", 2), ("ET", 3), ("RC", cavity), ("NET", 1), ("CC", 1)}


def test_a_patient_known_under_two_names_stays_in_one_part(folders, tmp_path):
    one = {name: folders[name] for name in ("ucsf_pdgm", "upenn_gbm")}
    parts, _ = join(one, GLIOMA)
    items = [item for part in PARTS for item in parts[part]]
    first, second = (sorted({patient_of(item) for item in items if item["source"] == name}) for name in one)
    pairs = list(zip(first[-4:], second[:4], strict=True))  # so that another draw would divide them otherwise
    rows = [f"{ucsf.replace('-0', '-')},M,61,{upenn.lower()}" for ucsf, upenn in pairs]  # UCSF writes fewer zeros
    table = tmp_path / "known.csv"
    table.write_text("\n".join(["ID,Sex,Age,UPENN ID", *rows]) + "\n")
    parts, _ = join(one, GLIOMA, known_as=table)
    place = {item["case"]: part for part in PARTS for item in parts[part]}
    patient = {item["case"]: item["patient"] for part in PARTS for item in parts[part]}
    for ucsf, upenn in pairs:
        cases = [case for case in place if case.startswith((ucsf, upenn))]
        assert len({place[case] for case in cases}) == len({patient[case] for case in cases}) == 1
        assert {case[:4] for case in cases} == {"UCSF", "UPEN"}


def test_refusals(folders, tmp_path):
    africa = folders["brats_africa"]
    with refused(ValueError, "expected two or more, each as COHORT=FOLDER"):
        folders_of(["ucsf_pdgm=a"])
    with refused(ValueError, "ucsf_pdgm is given twice"):
        folders_of(["ucsf_pdgm=a", "ucsf_pdgm=b"])
    with refused(ValueError, "split 'fixed'", "expected seeded, cv1of5"):
        join({"brats_africa": africa}, GLIOMA, "fixed")
    with refused(ValueError, "iseg2017 has t1, t2; glioma needs t1, t1c, t2, flair"):
        join({"iseg2017": africa}, GLIOMA)
    with refused(ValueError, "mu_glioma_post cannot be joined to brats2023", "class RC (value 4) has no counterpart"):
        join({"mu_glioma_post": folders["mu_glioma_post"]}, get_cohort("brats2023"))
    with refused(ValueError, "is named like a case of", "but ucsf_pdgm"):
        join({"ucsf_pdgm": africa}, GLIOMA)
    with refused(ValueError, "is a case of brats2023 and of brats_africa"):
        join({"brats2023": africa, "brats_africa": africa}, GLIOMA)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with refused(ValueError, "other.csv: no row names patients of two data sets"):
        join({"brats_africa": africa}, GLIOMA, known_as=tmp_path / "other.csv")


def cube(seed: int) -> np.ndarray:
    """A tumour off the middle of a cube, with BraTS's values."""
    label = np.zeros((12, 12, 12), np.uint8)
    label[1:5, 2:7, 6 + seed : 9 + seed], label[2:4, 3:5, 6:8] = 2, 4
    return label


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda label: label, ""),
        (lambda label: np.roll(label, 1, axis=0), ""),
        (lambda label: label * 0, ""),
        (lambda label: np.roll(label, (6, 5, 4), axis=(0, 1, 2)), ""),
        (lambda label: label[::-1], "-x, y, z"),
        (lambda label: label[:, ::-1, ::-1], "x, -y, -z"),
        (lambda label: label.transpose(2, 1, 0), "z, y, x"),
        (lambda label: label.transpose(1, 0, 2)[::-1], "y, -x, z"),
    ],
)
def test_mirrored_and_transposed_label_maps_are_said(tmp_path, caplog, change, said):
    for seed in range(2):
        write(tmp_path / "reference" / f"{seed}.nii.gz", cube(seed), np.eye(4))
        write(tmp_path / "maps" / f"{seed}.nii.gz", np.ascontiguousarray(change(cube(seed))), np.eye(4))
        assert other_axes(change(cube(seed)), cube(seed)).startswith(said)
    evaluate(tmp_path / "maps", tmp_path / "reference")
    (text,) = [each.message for each in caplog.records if "with other axes" in each.message] or [""]
    assert said in text
    assert bool(text) == bool(said)


def test_tables_say_over_how_many_cases_they_are(folder, reference, tmp_path, caplog):
    (folder / "b.nii.gz").unlink()
    published = "M3AE/1/BraTS2018 test split (57)"
    compare_methods(str(tmp_path / "out"), [f"m={folder}"], {}, str(reference), "brats2020", published)
    assert "brats2020, 1 of 2 cases" in (tmp_path / "out" / "report.md").read_text()
    assert "m: no label map of 1 of 2 cases: b." in caplog.text


@pytest.mark.parametrize("scale", [1.00001, 0.99999])
def test_values_that_a_header_scales_are_read(folder, reference, scale):
    write(folder / "a.nii.gz", label_map(0).astype(np.float32) * np.float32(scale))
    assert {value for (_, case, _), value in dice(evaluate(folder, reference)).items() if case == "a"} == {1.0}
