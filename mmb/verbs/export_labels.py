def export_labels(studies: str, output_dir: str, cohort: str) -> None:
    """Write the studies that were labelled in a viewer as cases to fine-tune on.

    Args:
        studies: the folder of the server's studies.
        output_dir: the folder to write: images and label maps as NIfTI, each study on one grid, named by numbers.
        cohort: the cohort of the served weights, which defines the label values; open_glioma for the shipped weights.
    """
    from mmb.errors import silence_libraries
    from mmb.server.export import export_labelled_studies

    silence_libraries()

    cases, refused = export_labelled_studies(studies, output_dir, cohort)
    print("\n".join([f"{output_dir}: {len(cases)} cases", *(f"not used: {reason}" for reason in refused)]))
