def join(
    output: str,
    *sources: str,
    cohort: str = "glioma_cavity_background",
    split: str | None = None,
    seed: int = 0,
    known_as: str | None = None,
) -> None:
    """Write one datalist JSON for several data sets, by the names of their files.

    Labels are read by the values of each source. No patient is in two parts, and every part has cases of every source.

    Args:
        output: the JSON file to write; its paths are relative to the folder that holds all sources, which is printed.
        sources: two or more COHORT=FOLDER, e.g. ucsf_pdgm=data/UCSF-PDGM; docs/datasets.md lists the cohorts.
        cohort: cohort to train with: glioma_cavity_background; glioma_cavity_ignored, which leaves resection cavities
            out of losses and metrics; or glioma, where they are a separate class.
        split: seeded, the default; cv1of5 etc. for cross-validation; full (train on all cases); or all_test.
        seed: seed of the split.
        known_as: CSV file, such as a publisher's, whose rows name the same patient in two data sets, e.g. in
            columns for UCSF-PDGM and BraTS 2021.
    """
    from common.cohorts import get_cohort
    from common.cohorts.datalist import write_datalist
    from common.cohorts.splits import refuse_shared_patients
    from mmb.experiments.joining import as_datalist, folders_of, in_words
    from mmb.experiments.joining import join as join_cohorts

    definition = get_cohort(cohort)
    parts, base = join_cohorts(folders_of(sources), definition, split, seed, known_as=known_as)
    refuse_shared_patients(parts, base)
    write_datalist(as_datalist(parts, definition, base, split, seed), output)
    print(f"{output}: {in_words(parts)}\nTrain with --cohort {cohort} --dataset_dir {base} --datalist {output}")
