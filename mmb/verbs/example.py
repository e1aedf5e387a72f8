from collections.abc import Sequence


def example(folder: str, dicom: bool = False, only: Sequence[str] | None = None) -> None:
    """Write one real patient with a glioma, with an expert's label map, to try `predict` on.

    The case is BraTS-SSA-00120-000 of BraTS-Africa (TCIA, doi 10.7937/v8h6-8x67, CC BY 4.0). It is one of the nine
    test cases of the shipped weights. The attribution is written beside the images.

    Args:
        folder: where to write; it must not exist yet, or be empty.
        dicom: write DICOM series, without the label map; no scanner wrote their headers.
        only: the sequences to write, e.g. t1c,flair; by default t1,t1c,t2,flair.
    """
    from common.modalities import display_subset, resolve_subset
    from mmb.clinic.examples.patient import ATTRIBUTION, CASE, IMAGES, LABEL, SCORES, write_example

    write_example(folder, dicom, resolve_subset(only, tuple(IMAGES)))
    print(f"{folder}: {CASE} of BraTS-Africa, CC BY 4.0 ({ATTRIBUTION}).")
    if not dicom:
        print(f"The expert's label map: {LABEL}; 1 necrotic core, 2 oedema, 3 enhancing tumour.")
    print("Dice (%) of the default weights in this case, and its rank by their mean among the nine test cases:")
    for subset, scores in SCORES.items():
        dice = "/".join(f"{100 * value:.1f}" for value in scores.dice)
        print(f"  {display_subset(subset)}: WT/TC/ET {dice}, rank {scores.rank} of 9")
    print(f"Segment it: mmb predict {folder} RESULT")
