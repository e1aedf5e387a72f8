def average(output_dir: str, name: str, *folders: str) -> None:
    """Average the evaluations of several trainings of one method, e.g. with different seeds, case by case.

    Args:
        output_dir: the folder to write, which compare accepts like any evaluation.
        name: name of the method.
        folders: two or more output folders of evaluations.
    """
    from common.evaluation.analysis.combine import average_repeats, require_apart, spread
    from common.evaluation.metrics.results import read_evaluation, write_evaluation

    require_apart(output_dir, folders)
    repeats = [read_evaluation(folder) for folder in folders]
    write_evaluation(average_repeats(name, repeats), output_dir)
    print(f"{output_dir}: {name}, {len(folders)} trainings; mean Dice (%) and its spread over trainings:")
    print((100 * spread(repeats)).round(1).to_string())
