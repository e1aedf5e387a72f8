def datalist(
    cohort: str,
    dataset_dir: str,
    output: str,
    split: str | None = None,
    seed: int = 0,
    *,
    patients: str | None = None,
    nnunet: bool = False,
) -> None:
    """Write a datalist JSON for a cohort's folder, by the names of its files; `check` looks into them.

    A folder of nnU-Net's raw data is read as its dataset.json says, whatever the order of its classes.

    Args:
        cohort: the data set, e.g. brats2021, ucsf_pdgm or open_glioma; docs/datasets.md lists all.
        dataset_dir: the folder as downloaded.
        output: the JSON file to write, with paths relative to dataset_dir; or, with --nnunet, a new folder.
        split: a published split, namely robustseg (brats2015), fold1 to fold3 (brats2018), fixed (brats2020,
            brats2021, open_glioma), imfuse (brats2023), mag_ms (msd_task01, iseg2017), fixed50 or fold0 to fold4
            (open_glioma); cv1of5 etc. for cross-validation; full (train on all cases); all_test; or seeded, the
            default.
        seed: seed of a split that is drawn at random.
        patients: CSV file with the columns case and patient, for cases whose names do not say whose they are.
        nnunet: write raw data of nnU-Net v2 instead of a datalist, e.g. to nnUNet_raw/Dataset137_BraTS: copies of the
            images, labels with its values and regions, and splits_final.json for nnUNet_preprocessed.
    """
    from common.cohorts import get_cohort
    from common.cohorts.datalist import write_datalist
    from common.cohorts.splits import refuse_shared_patients, split_cases
    from mmb.experiments.joining import as_datalist, in_words
    from mmb.experiments.nnunet_raw import write_raw

    definition = get_cohort(cohort)
    parts = split_cases(definition, dataset_dir, split, seed, patients=patients)
    refuse_shared_patients(parts, dataset_dir)
    if nnunet:
        write_raw(parts, definition, output)
    else:
        write_datalist(as_datalist(parts, definition, dataset_dir, split, seed), output)
    print(f"{output}: {in_words(parts)}")
