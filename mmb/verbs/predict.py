from collections.abc import Sequence


def predict(
    study: str | None,
    output_dir: str,
    bundle: str = "m3ae",
    /,
    t1: str | None = None,
    t1c: str | None = None,
    t2: str | None = None,
    flair: str | None = None,
    series: dict | None = None,
    modalities: Sequence[str] | None = None,
    reference: str | None = None,
    recipe: str | None = None,
    ckpt_path: str | None = None,
    device: str | None = None,
    skull_strip: str = "auto",
    decision: str | None = None,
    label: str = "",
    keep_images: bool = False,
    site: str | None = None,
    each: bool = False,
) -> None:
    """Segment a patient's study with any non-empty subset of the sequences, and print what was used as which sequence.

    Args:
        study: the folder: DICOM series, or NIfTI files named after their sequences. It is left out if image files are
            given one by one.
        output_dir: the folder to write: label.nii.gz, summary.html, summary.json, and for DICOM seg.dcm and report.dcm.
        bundle: name or folder of a bundle, or the folder of a trained nnU-Net; by default m3ae.
        t1: the image file of this sequence, of any name.
        t1c: likewise.
        t2: likewise.
        flair: likewise.
        series: SeriesNumbers for series that are recognised wrongly or not at all, e.g. t1c=7 flair=4; t1=none leaves
            a sequence out.
        modalities: the sequences to use, e.g. t1c,flair; by default all.
        reference: the sequence, or the SeriesInstanceUID of a series, that defines the grid of the result; by default
            T1c, or else the finest one.
        recipe: recipe that the weights were trained with, e.g. brats2018; by default that of the shipped weights.
            For the synthetic phantom it is phantom.
        ckpt_path: path of the weights; by default the shipped ones.
        device: cpu, cuda or cuda:1; by default a GPU if there is one.
        skull_strip: auto extracts the brain from images that show more, yes from all, no from none.
        decision: threshold marks what is more probable than not, as in the papers; expected_dice also what is less
            probable, where that is expected to overlap best with the truth; by_sequences uses the threshold for what
            T1c shows if it is there, and else expected_dice. By default that of the bundle.
        label: a text of your choice, which summary.html and studies.csv show to identify the result.
        keep_images: also write the images, the brain mask and the probabilities on one grid, into the subfolder images.
        site: the site's table, a JSON file that says by their descriptions what its series are, e.g.
            {"t1c": ["*T1*KM*"], "none": ["*navi*"]}; what is set by hand goes before.
        each: the folder holds a subfolder for each study; studies.csv lists them. One that fails does not stop the
            others; the same command, given again, continues where it ended.
    """
    from mmb.clinic.intake.folder import Source, require_image_files, require_studies, study_files
    from mmb.errors import silence_libraries

    given = {"t1": t1, "t1c": t1c, "t2": t2, "flair": flair}
    files = {name: file for name, file in given.items() if file is not None}
    if (study is None) != bool(files):
        raise ValueError(
            "expected two folders, STUDY OUTPUT_DIR; or OUTPUT_DIR alone and the file of each sequence, such as --t1c "
            "FILE --flair FILE. In the second form, --bundle BUNDLE selects another bundle than m3ae."
        )
    if files and (each or series):
        raise ValueError(f"{'--each' if each else '--series'} is for folders of studies; leave it out, or the files.")
    silence_libraries()
    # What cannot be used is refused before PyTorch is loaded, which takes seconds.
    source: Source = files if study is None else study
    if study is None:
        require_image_files(files)
    elif each:
        require_studies(study)
    else:
        source = study_files(study)
    from mmb.clinic.console import segment_study
    from mmb.clinic.options import Options
    from mmb.clinic.recognise.site import read_site

    options = Options(
        bundle, recipe, ckpt_path, device, decision, series, modalities, reference, skull_strip, label, keep_images,
        None if site is None else read_site(site),
    )  # fmt: skip
    segment_study(source, output_dir, options, each)
