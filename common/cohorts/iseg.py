"""iSEG-2017: T1 and T2 of infants' brains at six months, with cerebrospinal fluid, grey and white matter.

10 subjects with labels (``iSeg-2017-Training/subject-1-T1.img`` with its ``.hdr``, ``-T2``, ``-label``) and 13 without
(``iSeg-2017-Testing``), Analyze 7.5 or converted to NIfTI, 1 mm, without skull. Source: Wang et al. 2019 (TMI 38),
"Benchmark on Automatic Six-Month-Old Infant Brain Segmentation Algorithms: The iSeg-2017 Challenge".
"""

from common.cohorts.cohort import Cohort
from common.modalities import LabelSet

TISSUES = {"CSF": 10, "GM": 150, "WM": 250}
ISEG = Cohort(
    "iseg2017",
    ("t1", "t2"),
    LabelSet(TISSUES, regions={name: (name,) for name in TISSUES}),
    brain_ml=(300.0, 1500.0),  # at six months
    case_names=r"subject-\d+",
    image_files="{case}-{modality}",
    label_files=("{case}-label",),
)
