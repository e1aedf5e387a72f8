"""Several data sets as one datalist: patients, sources and the meaning of labels."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from layouts import touch_cases, write_cases
from refusals import refused

from common.cohorts import get_cohort, prepare
from common.cohorts.registry import patient_of
from common.cohorts.splits import PARTS
from common.modalities import IGNORED
from common.transforms import LoadSubjectd
from mmb.experiments.joining import folders_of, join
from mmb.verbs.join import join as join_verb

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
    by_source = (sorted({patient_of(item) for item in items if item["source"] == name}) for name in one)
    pairs = list(zip(*by_source, strict=False))[:4]
    rows = [f"{ucsf.replace('-0', '-')},M,61,{upenn}" for ucsf, upenn in pairs]  # UCSF writes fewer zeros in its table
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
    with refused(ValueError, "'ucsf_pdgm': expected COHORT=FOLDER"):
        folders_of(["ucsf_pdgm", "upenn_gbm=b"])
    with refused(ValueError, "ucsf_pdgm is given twice"):
        folders_of(["ucsf_pdgm=a", "ucsf_pdgm=b"])
    with refused(ValueError, "split 'fixed'", "expected seeded, cv1of5"):
        join({"brats_africa": africa}, GLIOMA, "fixed")
    with refused(ValueError, "iseg2017 has t1, t2; glioma needs t1, t1c, t2, flair"):
        join({"iseg2017": africa}, GLIOMA)
    with refused(ValueError, "mu_glioma_post cannot be joined to brats2023", "class RC (value 4) has no counterpart"):
        join({"mu_glioma_post": folders["mu_glioma_post"]}, get_cohort("brats2023"))
    with refused(ValueError, "is named like a case of", "but brats2023_ped was requested"):
        join({"brats2023_ped": africa}, GLIOMA)
    with refused(ValueError, "is named like a case of brats2023 or brats_africa or open_glioma, but ucsf_pdgm"):
        join({"ucsf_pdgm": africa}, GLIOMA)
    with refused(ValueError, "is a case of brats2023 and of brats_africa"):
        join({"brats2023": africa, "brats_africa": africa}, GLIOMA)
    with refused(FileNotFoundError, "none.csv: no such file"):
        join({"brats_africa": africa}, GLIOMA, known_as=tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with refused(ValueError, "other.csv: no row names patients of two data sets"):
        join({"brats_africa": africa}, GLIOMA, known_as=tmp_path / "other.csv")
