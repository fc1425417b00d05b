"""Reads a page whose every number is a link to the file that holds it, its title naming the cell.

`[21.9 [21.2, 22.6]](../study-main/tables/main.csv "variant=predrnnpp: mse_mean mse_low mse_high")` stands for three
cells of one row of a CSV; `[300](../../../workflows/protocols/study-main.yaml "training.steps")` for a setting.
"""

import re
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pandas as pd

from benchmark.system.strict_yaml import read_yaml

NUMBER = re.compile(r"[+\N{MINUS SIGN}-]?\d[\d,]*(?:\.\d+)?")
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+?)(?:\s+\"([^\"]*)\")?\)")
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
NO_RESULT = re.compile(r"95 %|L2|`[^`]*`|^#.*$", re.MULTILINE)
"""What may hold digits though it is neither a result nor a setting."""


def faults(page: Path) -> list[str]:
    """What is wrong with the numbers and links of `page`, a line each."""
    text = page.read_text()
    found = [f"{target}: no such file" for target in targets(text) if not (page.parent / target).exists()]
    for words, target, title in LINK.findall(text):
        path = page.parent / target.split("#")[0]
        found += link_faults(words, path, title) if path.exists() else []
    rest = NO_RESULT.sub("", IMAGE.sub("", LINK.sub("", text)))
    return found + [f"{match.group()} in {around(rest, match)!r} is no link" for match in NUMBER.finditer(rest)]


def targets(text: str) -> list[str]:
    """Every file that links and images name, without a place in it."""
    return [target.split("#")[0] for _, target, _ in LINK.findall(text)] + IMAGE.findall(text)


def link_faults(words: str, path: Path, title: str) -> Iterator[str]:
    """What is wrong with one link."""
    written = NUMBER.findall(words) if path.suffix in (".csv", ".yaml") else []
    if not written:
        if NUMBER.search(words):
            yield f"[{words}]({path.name}): numbers are linked to a CSV or a protocol"
        return
    try:
        values = cells(path, title)
    except (KeyError, ValueError) as error:
        yield f"[{words}]({path.name}): {error}"
        return
    if len(values) != len(written):
        yield f"[{words}]({path.name}): {len(written)} numbers, {len(values)} cells"
    for number, value in zip(written, values, strict=False):
        if not agree(number, value):
            yield f"[{words}]({path.name} {title!r}): {number} is written, {value} is there"


def cells(path: Path, title: str) -> list[float]:
    """The values that `title` names in a CSV or a protocol.

    Raises:
        ValueError: `title` does not name exactly one row.
        KeyError: it names no column or setting.
    """
    if path.suffix == ".yaml":
        found = read_yaml(path)
        for key in title.split("."):
            found = found[int(key)] if isinstance(found, list) else found[key]
        return [len(found)] if isinstance(found, list) else [found]
    table = pd.read_csv(path)
    keys, columns = title.split(": ")
    for condition in keys.split(", "):
        name, wanted = condition.split("=")
        table = table[table[name].astype(str) == wanted]
    if len(table) != 1:
        raise ValueError(f"{len(table)} rows have {keys}")
    return table.iloc[0][columns.split()].astype(float).to_list()


def agree(written: str, value: float) -> bool:
    """Whether `written` is `value` to the digits that it has."""
    number = Decimal(written.replace("\N{MINUS SIGN}", "-").replace(",", ""))
    exact = Decimal(repr(float(value)))
    return exact.is_finite() and exact.quantize(number, rounding=ROUND_HALF_EVEN) == number


def around(text: str, match: re.Match[str]) -> str:
    """The words about a match."""
    return text[max(match.start() - 20, 0) : match.end() + 20].replace("\n", " ")
