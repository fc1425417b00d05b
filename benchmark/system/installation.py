"""Where this code runs from: a checkout, or a package that pip installed.

Installed, `benchmark` and `models` are packages below `deep_in_time`, where they are in nobody's way. What a person
works on then lies in a folder that `deep-in-time copy-workflow` has made. `build_backend.py` imports this module where
nothing is installed yet, so that at its top it imports what comes with Python alone.
"""

import contextlib
import filecmp
import shutil
from collections.abc import Iterator
from pathlib import Path

OWN = __name__.rpartition("benchmark.")[0]
"""What the names of our modules begin with: nothing in a checkout, `deep_in_time.` where it is installed."""
INSTALLED = bool(OWN)
"""Whether pip installed it, and not as editable."""
ROOT = Path(__file__).parents[2]
"""Where `benchmark/`, `models/` and `workflows/` lie: the checkout, or the installed package."""
PROGRAM: str = "deep-in-time" if INSTALLED else "python -m benchmark"
"""What starts it, for messages."""
MODULE = "deep_in_time" if INSTALLED else "benchmark"
"""What `python -m` and `torchrun -m` start."""

WORKFLOW = ("Snakefile", "environment.yml", "requirements.lock", "workflows", "profiles", "results/reference/speed")
"""Files and folders below `ROOT` that `copy-workflow` copies: what Snakemake needs."""


def project() -> Path:
    """Where protocols, chosen rates and published results lie: the checkout.

    Installed, it is the working directory if that is a copy of the workflow, and else the package itself, in which
    nothing is to be written.
    """
    here = Path.cwd()
    copied = INSTALLED and (here / "Snakefile").is_file() and (here / "workflows" / "protocols").is_dir()
    return here if copied else ROOT


PROJECT = project()


def check_project() -> None:
    """Raise UserError where results cannot be published: the installed package is no place for them."""
    from benchmark.system.errors import UserError

    if INSTALLED and PROJECT == ROOT:
        raise UserError(
            f"this folder holds no copy of the workflow, where published results and chosen rates are kept; "
            f"make one with `{PROGRAM} copy-workflow FOLDER`, and run the command in it"
        )


def copy_workflow(folder: Path) -> int:
    """Copy `WORKFLOW` into `folder`, which is made if it is missing; returns how many files are new there.

    Raises:
        UserError: a file of that name is there with another content; nothing is copied then.
    """
    from benchmark.system.errors import UserError

    found = [
        path for name in WORKFLOW for path in ((ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name])
    ]
    copies = {path: folder / path.relative_to(ROOT) for path in found if path.is_file() and path.suffix != ".pyc"}
    for path, copy in copies.items():
        if copy.exists() and not (copy.is_file() and filecmp.cmp(path, copy, shallow=False)):
            raise UserError(
                f"{copy}: is there and differs from the one to be copied; move it away, or name another folder"
            )
    new = {path: copy for path, copy in copies.items() if not copy.exists()}
    for path, copy in new.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return len(new)


EXTRAS = {
    "tracking": ("mlflow",),
    "cluster": ("snakemake_executor_plugin_slurm",),
    "workflow": (
        "argcomplete",
        "av",
        "jinja2",
        "lpips",
        "matplotlib",
        "packaging",
        "PIL",
        "pyarrow",
        "snakemake",
        "tabulate",
        "torchvision",
    ),
}
"""Extra of `pyproject.toml` -> the modules that come with it; all others come with the bare package."""


def remedy(module: str | None) -> str | None:
    """The command that installs `module`; None for one that is not of this project's needs."""
    top = (module or "").partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if top in modules), None)
    if extra is None:
        return None
    return f"pip install 'deep-in-time[{extra}]'" if INSTALLED else "pip install -r requirements.lock"


@contextlib.contextmanager
def extras_named() -> Iterator[None]:
    """A package that is missing in the body is a UserError that says how to install it."""
    from benchmark.system.errors import UserError

    try:
        yield
    except ModuleNotFoundError as error:
        how = remedy(error.name)
        if how is None:
            raise
        raise UserError(f"{error.name} is not installed; {how}") from error
