"""Shells complete commands, options, protocols, variants and seeds, as a person presses TAB."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmark.cli.all_commands import COMMANDS
from benchmark.cli.parser import COMPLETION
from benchmark.config.protocol import PROTOCOLS, load_protocol
from benchmark.config.variants import BASELINES

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
    "PS1": "ready> ",
    "TERM": "dumb",
}
ASK = f"""
{COMPLETION}
COMP_LINE="$1"; COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9
read -ra COMP_WORDS <<< "$1"; [[ "$1" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_python_argcomplete_global "${{COMP_WORDS[0]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
SMOKE = [entry.id for entry in load_protocol("smoke").variants]


def offered(line):
    """What bash offers after `line`."""
    command = ["bash", "--norc", "--noprofile", "-c", ASK, "bash", line]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return {word.strip() for word in done.stdout.splitlines()} - {""}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("python -m benchmark ", {*COMMANDS, "-h", "--help"}),
        ("python3 -m benchmark import", {"import-weights"}),
        ("python -m benchmark predict --ho", {"--horizon"}),
        ("python -m benchmark plan --protocol ", {path.stem for path in PROTOCOLS.glob("*.yaml")}),
        ("python -m benchmark train --protocol smoke --variant ", set(SMOKE)),
        ("python -m benchmark train --protocol smoke --variant convlstm,", {f"convlstm,{name}" for name in SMOKE[1:]}),
        ("python -m benchmark evaluate --protocol smoke --variant b", set(BASELINES) & {"black"}),
        ("python -m benchmark probe --protocol smoke --variant predrnn --seed ", {"1", "2"}),
        ("python -m benchmark evaluate --weights w --lpips-backbone ", {"alex", "vgg", "squeeze"}),
    ],
)
def test_bash_offers_what_may_follow(line, words):
    assert offered(line) == words


class Terminal:
    """An interactive shell that someone types into."""

    def __init__(self, command):
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execvpe(command[0], command, ENVIRONMENT)

    def type(self, keys, until):
        """Type and return what appears up to a match of `until`; a shell that hangs is an error."""
        os.write(self.screen, keys.encode())
        seen, last = "", time.monotonic() + 60
        while not re.search(until, seen):
            ready, _, _ = select.select([self.screen], [], [], max(0, last - time.monotonic()))
            assert ready, seen
            seen += os.read(self.screen, 4096).decode(errors="replace")
        return seen

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.screen)


SHELLS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_line_of_the_docs_turns_it_on(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert f"\n{COMPLETION}\n" in (ROOT / "docs" / "command_line.md").read_text()
    terminal = Terminal(SHELLS[shell])
    try:
        start = "autoload -U compinit && compinit -u -D; " if shell == "zsh" else ""
        terminal.type(f"{start}{COMPLETION}; echo turned $((20 + 3)) on\n", "turned 23 on")
        terminal.type("python -m benchmark import\t", "import-weights ")
        terminal.type("--fro\t", "--from ")
        terminal.type("open\t", "openstl ")
    finally:
        terminal.close()
