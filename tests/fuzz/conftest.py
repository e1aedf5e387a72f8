from fuzz.tally import outcomes


def pytest_terminal_summary(terminalreporter):
    """Print what became of the tries (of this process: run without -n to see them)."""
    for test, counts in outcomes.items():
        kinds = ", ".join(f"{counts[kind]} {kind}" for kind in ("refused", "benign", "silent", "crashed"))
        terminalreporter.write_line(f"{test}: {counts.total()} tries: {kinds}")
    if outcomes:
        total = sum(outcomes.values(), type(next(iter(outcomes.values())))())
        kinds = ", ".join(f"{total[kind]} {kind}" for kind in ("refused", "benign", "silent", "crashed"))
        terminalreporter.write_line(f"all: {total.total()} tries: {kinds}")
