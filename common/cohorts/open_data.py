"""The cohorts of glioma data sets that their publishers share openly, outside the BraTS challenges.

Images are skull-stripped and registered to each other as downloaded. `docs/datasets.md` says where each is found, how
its folders look, and which facts could not be confirmed.
"""

from typing import Any

from common.cohorts.brats import CAVITY, SINCE_2023, UNTIL_2021, with_cavity
from common.cohorts.cohort import Cohort
from common.modalities import GLIOMA, LabelSet, tumour_labels

_LUMIERE = "{case}/DeepBraTumIA-segmentation/atlas/"


def _cohort(name: str, labels: LabelSet, case_names: str, *label_files: str, **others: Any) -> Cohort:
    others = {"image_files": "{case}/[^/]*_{modality}", **others}
    return Cohort(name, GLIOMA, labels, case_names=case_names, label_files=label_files, **others)


COHORTS: dict[str, Cohort] = {
    cohort.name: cohort
    for cohort in (
        # University of California San Francisco, before treatment; besides the tumour there are masks of the brain
        _cohort(
            *("ucsf_pdgm", UNTIL_2021, r"(?P<patient>UCSF-PDGM-\d+)(_FU\d+d)?"),
            "{case}(_nifti)?/[^/]*_tumor_segmentation",
            image_files="{case}(_nifti)?/[^/]*_{modality}",
        ),
        # University of Pennsylvania: a label that was corrected by hand is taken before the automatic one
        _cohort(
            *("upenn_gbm", UNTIL_2021, r"(?P<patient>UPENN-GBM-\d+)_\d+"),
            *("{case}_segm", "{case}_automated_approx_segm"),
        ),
        # University of Missouri, after treatment
        *with_cavity(
            _cohort(*("mu_glioma_post", CAVITY, r"(?P<patient>PatientID_\d+)/Timepoint_\d+"), "{case}/[^/]*_tumorMask")
        ),
        # University of California San Diego, after treatment; the cellular tumour of diffusion imaging is another thing
        *with_cavity(
            _cohort(*("ucsd_ptgbm", CAVITY, r"(?P<patient>UCSD-PTGBM-\d+)(_\d+)?"), "{case}/[^/]*_BraTS_tumor_seg")
        ),
        # Rio Hortega University Hospital, before and after surgery; the cavity is not labelled
        _cohort(*("rhuh_gbm", SINCE_2023, r"(?P<patient>RHUH-\d+)(/\d+)?"), "{case}/[^/]*_seg(mentations?)?"),
        # BraTS-TCGA-GBM and -LGG: a label that was corrected by hand is taken before the automatic one
        _cohort(
            *("tcga_glioma", UNTIL_2021, r"(?P<patient>TCGA-\w\w-\w{4})(_[\d.]+)?"),
            *("{case}/[^/]*_GlistrBoost_ManuallyCorrected", "{case}/[^/]*_GlistrBoost"),
        ),
        # University of Bern: labels are those of DeepBraTumIA, which nobody corrected
        _cohort(
            *("lumiere", tumour_labels(ET=1, NCR=2, ED=3), r"(?P<patient>Patient-\d+)/week-\d+(-\d+)?"),
            f"{_LUMIERE}segmentation/seg_mask",
            image_files=f"{_LUMIERE}skull_strip/{{modality}}_skull_strip",
        ),
        # Several of these as one (`common.cohorts.splits.join`), with the values of BraTS since 2023
        *with_cavity(Cohort("glioma", GLIOMA, CAVITY)),
    )
}
