"""Files of tests that take long, longest first: a worker that got one last would end long after the other."""

LONG = (
    "tests/workflow/test_workflow.py",
    "tests/reporting/tracking/test_mirroring.py",
    "tests/workflow/test_cohorts.py",
    "tests/reporting/figures/test_figures.py",
    "tests/cost/test_speed.py",
    "tests/training/test_resume.py",
    "tests/reporting/tracking/test_tracking.py",
    "tests/training/test_train.py",
    "tests/reporting/tables/test_tables.py",
    "tests/training/test_guard.py",
    "tests/reporting/figures/test_score_figures.py",
    "tests/training/test_cohort.py",
    "tests/training/test_distributed.py",
    "tests/system/test_disk.py",
)


def long_first(nodeid: str) -> int:
    """Place of a test's file in `LONG`; all others come after them, as they were."""
    file = nodeid.partition("::")[0]
    return LONG.index(file) if file in LONG else len(LONG)
