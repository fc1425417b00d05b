"""What the documentation asks a person to type, and where it leads: commands, changes of files, protocols, links."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "results/reference/**/README.md")
PROTOCOLS = ("workflows/protocols/*.yaml", "examples/*.yaml")
PROGRAMS = {
    "python",
    "snakemake",
    "make",
    "pytest",
    "mlflow",
    "conda",
    "pre-commit",
    "pip",
    "deep-in-time",
    "git",
    "cp",
    "mkdir",
    "cat",
    "ls",
    "cd",
    "export",
    "eval",
    "ssh",
    "apt-get",
    "sudo",
    "ffmpeg",
    "srun",
    "sbatch",
    "torchrun",
    "curl",
    "wget",
    "docker",
}
"""First words by which a line without a language, or a piece of code in a sentence, is taken for a command."""
SHELL = ("sh", "bash", "shell", "console")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it is, as editors take it."""
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a page; `whole` = in a block of its own, not a piece of it in a sentence."""

    place: str
    text: str
    whole: bool = True


def pages() -> list[str]:
    """All pages, as paths below the top level."""
    return sorted({str(path.relative_to(ROOT)) for pattern in PAGES for path in ROOT.glob(pattern)})


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page; one without a language whose first word is a program's is taken for `sh`."""
    text, found = (ROOT / page).read_text(), []
    for match in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        inside = textwrap.dedent(match[3])
        language = "sh" if not match[2] and inside.split()[:1] and inside.split()[0] in PROGRAMS else match[2]
        found.append(Block(page, text[: match.start()].count("\n") + 2, language, inside))
    return found


def prose(page: str) -> str:
    """The text of a page with its fenced blocks left blank, so that lines keep their numbers."""
    text = (ROOT / page).read_text()
    return re.sub(r"^( *)```.*?^\1```$", lambda m: "\n" * m[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)


def links(page: str) -> list[str]:
    """What the links and pictures of a page lead to, but for addresses of the web."""
    found = re.findall(r"\]\(([^)\s]+)", re.sub(r"`[^`]+`", "", prose(page)))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> Iterator[Command]:
    """Every command of every page, and those in the heads of the protocols."""
    for page in pages():
        for block in blocks(page):
            if block.language in SHELL:
                yield from (Command(block.place, line) for line in lines(block.text))
        said = prose(page)
        for match in re.finditer(r"`([^`]+)`", said):
            words = match[1].split()
            if len(words) > 1 and words[0] in PROGRAMS:
                yield Command(f"{page}:{said[: match.start()].count(chr(10)) + 1}", " ".join(words), whole=False)
    for path in sorted(path for pattern in PROTOCOLS for path in ROOT.glob(pattern)):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if line.startswith("# Run:"):
                said = line.removeprefix("# Run:").partition("   (")[0].strip()
                yield Command(f"{path.relative_to(ROOT)}:{number}", said)


def lines(text: str) -> list[str]:
    """The commands of a block: continued lines joined, comments and prompts cut off."""
    joined = re.sub(r"\\\n\s*", "", text)
    found = [re.sub(r"(^|\s)#\s.*", "", line.removeprefix("$ ")).strip() for line in joined.splitlines()]
    return [line for line in found if line]


def change(block: Block, folder: Path) -> None:
    """Make the change that a `diff` block shows: its first line names the file, the rest is as in a unified diff."""
    first, *rest = block.text.splitlines()
    path = folder / first.removeprefix("# ")
    before, after = ("".join(f"{line[1:]}\n" for line in rest if not line.startswith(sign)) for sign in ("+", "-"))
    text = path.read_text()
    assert text.count(before) == 1, f"{block.place}: {path.name} has {text.count(before)} places like the block's"
    path.write_text(text.replace(before, after))
