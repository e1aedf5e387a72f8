import sys


def check(cohort: str, dataset_dir: str) -> None:
    """Print a table of the cases in a data folder, then their problems; exit with 1 if there are any.

    It also counts the cases without a label and the image files that are ignored; neither is a problem. Without
    problems it writes checked.json into the folder, so that a training does not warn that its cases were not checked.

    Args:
        cohort: the data set, e.g. brats2021, ucsf_pdgm or open_glioma; docs/datasets.md lists all.
        dataset_dir: the folder as downloaded, or the folder of one subject.
    """
    from common.cohorts import get_cohort
    from common.cohorts.contents import CHECKED
    from common.cohorts.scan import find_cases
    from common.transforms.load import LoadSubjectd
    from mmb.clinic.recognise.image import doubts, has_known_sequences
    from mmb.experiments.checking import print_check, write_checked

    judge = doubts if has_known_sequences(get_cohort(cohort)) else None
    if not print_check(cohort, dataset_dir, judge, LoadSubjectd(cohort)):
        sys.exit(1)
    try:
        print(f"{write_checked(find_cases(dataset_dir, get_cohort(cohort)), dataset_dir)}: written.")
    except OSError as error:
        print(f"{CHECKED}: not written ({error}); a training will warn that its cases were not checked.")
