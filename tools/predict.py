from collections.abc import Sequence


def predict(
    study: str,
    output_dir: str,
    bundle: str,
    series: dict | None = None,
    modalities: Sequence[str] | None = None,
    reference: str | None = None,
    recipe: str | None = None,
    ckpt_path: str | None = None,
    device: str | None = None,
    skull_strip: str = "auto",
    decision: str | None = None,
    each: bool = False,
) -> None:
    """Segment a patient's study with any non-empty subset of the sequences, and print what was used as which sequence.

    Args:
        study: the folder: DICOM series, or NIfTI files named after their sequences.
        output_dir: the folder to write: label.nii.gz, seg.dcm (for DICOM) and summary.html.
        bundle: name or folder of a bundle, e.g. m3ae.
        series: SeriesNumbers for series that are not recognised, or wrongly, e.g. t1c=7 flair=4; t1=none leaves a
            sequence out.
        modalities: the sequences to use, e.g. t1c,flair; by default all.
        reference: the sequence, or the SeriesInstanceUID of a series, that defines the grid of the result; by default
            T1c, or else the finest one.
        recipe: recipe that the weights were trained with, e.g. brats2018; by default that of the bundle's own weights.
        ckpt_path: path of the weights; by default the bundle's own.
        device: cpu, cuda or cuda:1; by default a GPU if there is one.
        skull_strip: auto extracts the brain from images that show more, yes from all, no from none.
        decision: threshold marks what is more probable than not, as in the papers; expected_dice also what is less
            probable, where that is expected to overlap best with the truth; by default that of the bundle.
        each: the folder holds a subfolder for each study; studies.html lists them. One that fails does not stop the
            others, and given again the command goes on where it ended.
    """
    from clinic.study.console import segment_study

    segment_study(
        study, output_dir, bundle, each, series=series, modalities=modalities, reference=reference, recipe=recipe,
        ckpt_path=ckpt_path, device=device, skull_strip=skull_strip, decision=decision,
    )  # fmt: skip
