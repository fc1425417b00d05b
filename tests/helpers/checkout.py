"""A copy of this checkout as it is now, for tests that run what a person would run in it."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def copy_checkout(folder: Path, records: bool = False) -> Path:
    """Copy all files that git knows or does not ignore to `folder`, committed in a repository of its own.

    Published records, some thousand files, only with `records`.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and (records or "/records/" not in name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    """Commit all that lies in the copy."""
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    for command in (["add", "."], ["commit", "--quiet", "--message", "copy"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
