"""The cohorts of the BraTS challenges and of the data sets that share their labels or their cases.

Files are named after their case and sequence, as in ``BraTS20_Training_001/BraTS20_Training_001_t1ce.nii.gz`` or
``BraTS-GLI-00001-000/BraTS-GLI-00001-000-t2f.nii.gz``.
"""

from dataclasses import replace

from common.cohorts.cohort import Cohort
from common.modalities import GLIOMA, tumour_labels, without_cavity

UNTIL_2021, SINCE_2023 = tumour_labels(NCR=1, ED=2, ET=4), tumour_labels(NCR=1, ED=2, ET=3)
CAVITY = tumour_labels(NCR=1, ED=2, ET=3, RC=4)
CHILD = (400.0, 2000.0)  # smallest and largest brain in ml
PHANTOM = Cohort("phantom", GLIOMA, UNTIL_2021)
"""The synthetic cohort (`common.cohorts.phantom`)."""


def with_cavity(cohort: Cohort) -> list[Cohort]:
    """Return a cohort that has the resection cavity as a class, and two variants that do not.

    ``..._cavity_background`` reads the cavity as background; ``..._cavity_ignored`` excludes its voxels from losses and
    metrics.
    """
    others = {reading: without_cavity(cohort.labels, reading) for reading in ("background", "ignored")}
    return [cohort, *(replace(cohort, name=f"{cohort.name}_cavity_{how}", labels=own) for how, own in others.items())]


def _since_2023(kinds: str) -> str:
    """Return the pattern of case names since 2023, whose last number is the time point."""
    return rf"(?P<patient>BraTS-({kinds})-\d+)-\d+"


COHORTS: dict[str, Cohort] = {
    cohort.name: cohort
    for cohort in (
        # A folder for the grade, since LGG and HGG share names, and one for each sequence, which is optional here
        Cohort(
            *("brats2015", GLIOMA, tumour_labels(NCR=1, ED=2, NET=3, ET=4)),
            case_names=r"(?P<patient>([HL]GG/)?brats_\w+_pat\d+)_\d+",
            image_files=r"{case}/(VSD[^/]*/)?VSD\.Brain[^/]*\.MR_{modality}\.\d+",
            label_files=(r"{case}/(VSD[^/]*/)?VSD\.Brain[^/]*\.OT\.\d+",),
        ),
        Cohort("brats2018", GLIOMA, UNTIL_2021, case_names=r"BraTS1[78]_\w+"),
        Cohort("brats2019", GLIOMA, UNTIL_2021, case_names=r"BraTS19_\w+"),
        # The label of BraTS20_Training_355 has another name.
        Cohort(
            *("brats2020", GLIOMA, UNTIL_2021),
            case_names=r"BraTS20_\w+",
            label_files=("{case}/{case}_seg", r"{case}/W39_1998\.09\.19_Segm"),
        ),
        Cohort("brats2021", GLIOMA, UNTIL_2021, case_names=r"BraTS2021_\d+"),
        # 2023: GLI before treatment, SSA, MET and MEN. SSA is stored as RAS, the others as LPS, which reorientation
        # makes alike.
        Cohort(*("brats2023", GLIOMA, SINCE_2023), case_names=rf"{_since_2023('GLI|SSA|MET|MEN|GoAT')}|BraTS-GoAT-\d+"),
        # 2024 and 2025, GLI after treatment
        *with_cavity(Cohort("brats2024_gli", GLIOMA, CAVITY, case_names=_since_2023("GLI"))),
        Cohort("brats_africa", GLIOMA, SINCE_2023, case_names=_since_2023("SSA")),
        Cohort("brats_men", GLIOMA, SINCE_2023, case_names=_since_2023("MEN")),
        Cohort("brats_met", GLIOMA, SINCE_2023, case_names=_since_2023("MET")),
        # 2025, with metastases after treatment
        *with_cavity(Cohort("brats2025_met", GLIOMA, CAVITY, case_names=_since_2023("MET"))),
        # Children: a cyst and what does not enhance are separate. The first release had other values.
        Cohort(
            *("brats_ped", GLIOMA, tumour_labels(ET=1, NET=2, CC=3, ED=4)),
            brain_ml=CHILD,
            case_names=_since_2023("PED"),
        ),
        Cohort("brats2023_ped", GLIOMA, SINCE_2023, brain_ml=CHILD, case_names=_since_2023("PED")),
        # 18 cases of BraTS 2021, where ET is 4, and 32 of BraTS-Africa (2023, SSA), where it is 3; both are CC BY 4.0
        Cohort(
            *("open_glioma", GLIOMA, replace(SINCE_2023, synonyms={4: 3})),
            case_names=rf"BraTS2021_\d+|{_since_2023('SSA')}",
        ),
        # The Decathlon's files have four channels, in this order.
        Cohort(
            *("msd_task01", GLIOMA, tumour_labels(ED=1, NCR=2, ET=3)),
            case_names=r"BRATS_\d+",
            image_files="imagesT[rs]/{case}",
            label_files=("labelsTr/{case}",),
            channels=("flair", "t1", "t1c", "t2"),
        ),
    )
}
