"""The cohorts of glioma data sets that their publishers share openly, outside the BraTS challenges.

Images are skull-stripped and registered to each other as downloaded. `docs/datasets.md` says where each is found, how
its folders look, and which facts could not be confirmed.
"""

from common.cohorts.brats import with_cavity
from common.cohorts.cohort import Cohort
from common.modalities import GLIOMA, tumour_labels

COHORTS: dict[str, Cohort] = {
    cohort.name: cohort
    for cohort in (
        # University of California San Francisco, before treatment; besides the tumour there are masks of the brain
        Cohort(
            "ucsf_pdgm",
            GLIOMA,
            tumour_labels(NCR=1, ED=2, ET=4),
            label_names=("tumor_segmentation",),
            case_names=r"UCSF-PDGM-\d+(_FU\d+d)?(_nifti)?",
        ),
        # University of Pennsylvania: a label that was corrected by hand is taken before the automatic one
        Cohort(
            "upenn_gbm",
            GLIOMA,
            tumour_labels(NCR=1, ED=2, ET=4),
            label_names=("segm", "automated_approx_segm"),
            case_names=r"UPENN-GBM-\d+_\d+",
        ),
        # University of Missouri, after treatment
        *with_cavity(
            Cohort(
                "mu_glioma_post",
                GLIOMA,
                tumour_labels(NCR=1, ED=2, ET=3, RC=4),
                label_names=("tumormask",),
                case_names=r"PatientID_\d+_Timepoint_\d+",
            )
        ),
        # University of California San Diego, after treatment; the cellular tumour of diffusion imaging is another thing
        *with_cavity(
            Cohort(
                "ucsd_ptgbm",
                GLIOMA,
                tumour_labels(NCR=1, ED=2, ET=3, RC=4),
                label_names=("brats_tumor_seg",),
                case_names=r"UCSD-PTGBM-\d+(_\d+)?",
            )
        ),
        # Rio Hortega University Hospital, before and after surgery; the cavity is not labelled
        Cohort(
            "rhuh_gbm",
            GLIOMA,
            tumour_labels(NCR=1, ED=2, ET=3),
            label_names=("segmentations", "segmentation", "seg"),
            case_names=r"RHUH-\d+(_\d+)?",
        ),
        # BraTS-TCGA-GBM and -LGG: a label that was corrected by hand is taken before the automatic one
        Cohort(
            "tcga_glioma",
            GLIOMA,
            tumour_labels(NCR=1, ED=2, ET=4),
            label_names=("glistrboost_manuallycorrected", "glistrboost"),
            case_names=r"TCGA-\w\w-\w{4}(_[\d.]+)?",
        ),
        # University of Bern: labels are those of DeepBraTumIA, which nobody corrected
        Cohort(
            "lumiere",
            GLIOMA,
            tumour_labels(ET=1, NCR=2, ED=3),
            label_names=("seg_mask",),
            kind_folders=("skull_strip", "segmentation", "atlas", "DeepBraTumIA-segmentation"),
            only_in="atlas",
            case_names=r"Patient-\d+_week-\d+(-\d+)?",
        ),
        # Several of these as one (`common.cohorts.joining`), with the values of BraTS since 2023
        *with_cavity(Cohort("glioma", GLIOMA, tumour_labels(NCR=1, ED=2, ET=3, RC=4))),
    )
}
