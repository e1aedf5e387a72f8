"""The cohorts of the BraTS challenges and of the data sets that share their labels or their cases."""

from dataclasses import replace

from common.cohorts.cohort import Cohort
from common.modalities import GLIOMA, tumour_labels, without_cavity

GOAT = r"BraTS-GoAT-\d+(-\d+)?"
BRATS2021, GLI, SSA = r"BraTS2021_\d+", r"BraTS-GLI-\d+-\d+", r"BraTS-SSA-\d+-\d+"
MET, MEN, PED = r"BraTS-MET-\d+-\d+", r"BraTS-MEN-\d+-\d+", r"BraTS-PED-\d+-\d+"


def with_cavity(cohort: Cohort) -> list[Cohort]:
    """Return a cohort that has the resection cavity as a class, and two variants that do not.

    ``..._cavity_background`` reads the cavity as background; ``..._cavity_ignored`` excludes its voxels from losses and
    metrics.
    """
    others = {reading: without_cavity(cohort.labels, reading) for reading in ("background", "ignored")}
    return [cohort, *(replace(cohort, name=f"{cohort.name}_cavity_{how}", labels=own) for how, own in others.items())]


COHORTS: dict[str, Cohort] = {
    cohort.name: cohort
    for cohort in (
        Cohort(
            "brats2015", GLIOMA, tumour_labels(NCR=1, ED=2, NET=3, ET=4), case_names=r"([HL]GG_)?brats_\w+_pat\d+_\d+"
        ),
        Cohort("brats2018", GLIOMA, tumour_labels(NCR=1, ED=2, ET=4), case_names=r"BraTS1[78]_\w+"),
        Cohort("brats2019", GLIOMA, tumour_labels(NCR=1, ED=2, ET=4), case_names=r"BraTS19_\w+"),
        Cohort("brats2020", GLIOMA, tumour_labels(NCR=1, ED=2, ET=4), case_names=r"BraTS20_\w+"),
        Cohort("brats2021", GLIOMA, tumour_labels(NCR=1, ED=2, ET=4), case_names=BRATS2021),
        # 2023: GLI before treatment, SSA, MET and MEN. SSA is stored as RAS, the others as LPS, which reorientation
        # makes alike.
        Cohort("brats2023", GLIOMA, tumour_labels(NCR=1, ED=2, ET=3), case_names=f"{GLI}|{SSA}|{MET}|{MEN}|{GOAT}"),
        # 2024 and 2025, GLI after treatment
        *with_cavity(Cohort("brats2024_gli", GLIOMA, tumour_labels(NCR=1, ED=2, ET=3, RC=4), case_names=GLI)),
        Cohort("brats_africa", GLIOMA, tumour_labels(NCR=1, ED=2, ET=3), case_names=SSA),
        Cohort("brats_men", GLIOMA, tumour_labels(NCR=1, ED=2, ET=3), case_names=MEN),
        Cohort("brats_met", GLIOMA, tumour_labels(NCR=1, ED=2, ET=3), case_names=MET),
        # 2025, with metastases after treatment
        *with_cavity(Cohort("brats2025_met", GLIOMA, tumour_labels(NCR=1, ED=2, ET=3, RC=4), case_names=MET)),
        # Children: a cyst and what does not enhance are separate. The first release had other values.
        Cohort("brats_ped", GLIOMA, tumour_labels(ET=1, NET=2, CC=3, ED=4), brain_ml=(400.0, 2000.0), case_names=PED),
        Cohort("brats2023_ped", GLIOMA, tumour_labels(NCR=1, ED=2, ET=3), brain_ml=(400.0, 2000.0), case_names=PED),
        # 18 cases of BraTS 2021, where ET is 4, and 32 of BraTS-Africa (2023, SSA), where it is 3; both are CC BY 4.0
        Cohort(
            "open_glioma",
            GLIOMA,
            replace(tumour_labels(NCR=1, ED=2, ET=3), synonyms={4: 3}),
            case_names=f"{BRATS2021}|{SSA}",
        ),
        Cohort("msd_task01", GLIOMA, tumour_labels(ED=1, NCR=2, ET=3), case_names=r"BRATS_\d+"),
    )
}

MSD_CHANNELS = {"flair": 0, "t1": 1, "t1c": 2, "t2": 3}  # modality -> channel of an MSD Task01 image
