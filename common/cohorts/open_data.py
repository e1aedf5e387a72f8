"""The cohorts of glioma data sets that their publishers share openly, outside the BraTS challenges.

Images are skull-stripped and registered to each other as downloaded. `docs/datasets.md` says where each is found, how
its folders look, and which facts could not be confirmed.
"""

from typing import Any

from common.cohorts.brats import with_cavity
from common.cohorts.cohort import Cohort
from common.modalities import GLIOMA, LabelSet, tumour_labels


def _cohort(name: str, labels: LabelSet, label_names: tuple[str, ...], case_names: str, **others: Any) -> Cohort:
    return Cohort(name, GLIOMA, labels, label_names=label_names, case_names=case_names, **others)


COHORTS: dict[str, Cohort] = {
    cohort.name: cohort
    for cohort in (
        # University of California San Francisco, before treatment; besides the tumour there are masks of the brain
        _cohort(
            "ucsf_pdgm", tumour_labels(NCR=1, ED=2, ET=4), ("tumor_segmentation",), r"UCSF-PDGM-\d+(_FU\d+d)?(_nifti)?"
        ),
        # University of Pennsylvania: a label that was corrected by hand is taken before the automatic one
        _cohort("upenn_gbm", tumour_labels(NCR=1, ED=2, ET=4), ("segm", "automated_approx_segm"), r"UPENN-GBM-\d+_\d+"),
        # University of Missouri, after treatment
        *with_cavity(
            _cohort(
                "mu_glioma_post", tumour_labels(NCR=1, ED=2, ET=3, RC=4), ("tumormask",), r"PatientID_\d+_Timepoint_\d+"
            )
        ),
        # University of California San Diego, after treatment; the cellular tumour of diffusion imaging is another thing
        *with_cavity(
            _cohort(
                "ucsd_ptgbm", tumour_labels(NCR=1, ED=2, ET=3, RC=4), ("brats_tumor_seg",), r"UCSD-PTGBM-\d+(_\d+)?"
            )
        ),
        # Rio Hortega University Hospital, before and after surgery; the cavity is not labelled
        _cohort(
            "rhuh_gbm", tumour_labels(NCR=1, ED=2, ET=3), ("segmentations", "segmentation", "seg"), r"RHUH-\d+(_\d+)?"
        ),
        # BraTS-TCGA-GBM and -LGG: a label that was corrected by hand is taken before the automatic one
        _cohort(
            "tcga_glioma",
            tumour_labels(NCR=1, ED=2, ET=4),
            ("glistrboost_manuallycorrected", "glistrboost"),
            r"TCGA-\w\w-\w{4}(_[\d.]+)?",
        ),
        # University of Bern: labels are those of DeepBraTumIA, which nobody corrected
        _cohort(
            "lumiere",
            tumour_labels(ET=1, NCR=2, ED=3),
            ("seg_mask",),
            r"Patient-\d+_week-\d+(-\d+)?",
            kind_folders=("skull_strip", "segmentation", "atlas", "DeepBraTumIA-segmentation"),
            only_in="atlas",
        ),
        # Several of these as one (`common.cohorts.joining`), with the values of BraTS since 2023
        *with_cavity(Cohort("glioma", GLIOMA, tumour_labels(NCR=1, ED=2, ET=3, RC=4))),
    )
}
