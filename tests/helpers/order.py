"""Files of tests that take long, longest first: a worker that got one last would end long after the other."""

LONG = (
    "tests/workflow/test_workflow.py",
    "tests/workflow/test_cohorts.py",
    "tests/reporting/tracking/test_mirroring.py",
    "tests/training/test_distributed.py",
)


def long_first(nodeid: str) -> int:
    """Place of a test's file in `LONG`; all others come after them, as they were."""
    file = nodeid.partition("::")[0]
    return LONG.index(file) if file in LONG else len(LONG)
