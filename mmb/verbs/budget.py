def budget(methods: str, output: str, dataset_dir: str | None = None, steps: int = 10) -> None:
    """Measure steps of all methods of a list alternately, and say how many each gets in the time of the first one.

    For a comparison at equal computing time: write the epochs of the table into the list. Processors differ, so the
    table is made once.

    Args:
        methods: JSON file as for leaderboard.
        output: the CSV file to write, with the processor time of a step, and the epochs, steps and cases of each part.
        dataset_dir: the cohort's folder; the phantom is generated if none is given.
        steps: number of measured steps of each part.
    """
    from mmb.experiments.budget import measure_budget

    measure_budget(methods, output, dataset_dir, steps)
