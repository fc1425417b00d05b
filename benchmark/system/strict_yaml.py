"""YAML as plain values: nothing in a text is ever constructed or run, and each key stands once. Imports no torch."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from benchmark.system.errors import UserError, shortened

LARGEST_BYTES = 2**18
_MOST_VALUES = 50_000  # with what aliases repeat; the largest protocol here has 500
_DEEPEST = 20

_TAG = "tag:yaml.org,2002:"
_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": int,
    "float": lambda text: float(re.sub(r"\.(?=inf|nan)", "", text.lower())),
    "str": str,
}
_FORMS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    "float": (
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}


class _Loader(yaml.SafeLoader):
    """Types as in YAML 1.2: 1e-3 is a number; 010, 1:30 and yes are text, which YAML 1.1 reads as 8, 90 and true."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _type, (_form, _first) in _FORMS.items():
    _Loader.add_implicit_resolver(_TAG + _type, re.compile(f"^(?:{_form})$"), _first)


def read_yaml(path: Path) -> Any:
    """The value in the YAML file `path`: mappings with text as keys, lists, numbers, truth values, text and None.

    Raises:
        UserError: not readable, too large, no YAML, or YAML that names types, a key twice or itself.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(content) > LARGEST_BYTES:
        raise UserError(f"{path}: is larger than {LARGEST_BYTES // 2**10} KiB, the most that is read as YAML")
    try:
        root = yaml.compose(content.decode("utf-8"), Loader=_Loader)
    except RecursionError:
        raise UserError(f"{path}: is no YAML that can be read: nested more than {_DEEPEST} deep") from None
    except Exception as error:  # not only YAMLError: the scanner passes on what Python says of an impossible escape
        raise UserError(f"{path}: is no YAML: {' '.join(str(error).split())}") from None
    try:
        return _Values().of(root) if root is not None else None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


class _Values:
    """The values of one tree of nodes, counted as often as aliases repeat them."""

    def __init__(self) -> None:
        self._count = 0

    def of(self, node: yaml.Node, depth: int = 0) -> Any:
        """The plain value of `node`."""
        self._count += 1
        if self._count > _MOST_VALUES:
            raise ValueError(f"{_line(node)}: stands for more than {_MOST_VALUES:,} values; use fewer aliases")
        if depth > _DEEPEST:
            raise ValueError(f"{_line(node)}: nested more than {_DEEPEST} deep, or in itself by an alias")
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.of(entry, depth + 1) for entry in node.value]
        if not isinstance(node, yaml.ScalarNode) or kind not in _SCALARS:
            raise ValueError(f"{_line(node)}: tag {shortened(node.tag)} is refused; plain values need none")
        try:
            return _SCALARS[kind](node.value)
        except (ValueError, KeyError):
            raise ValueError(f"{_line(node)}: {shortened(node.value)} cannot be read as {kind}") from None

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, str] = {}
        for key_node, value_node in node.value:
            key = self.of(key_node, depth + 1)
            if not isinstance(key, str):
                raise ValueError(f"{_line(key_node)}: key {shortened(key)} is not text; put it in quotes")
            if key in values:
                raise ValueError(f"{_line(key_node)}: key {shortened(key)} stands on {lines[key]} already; keep one")
            values[key], lines[key] = self.of(value_node, depth + 1), _line(key_node)
        return values


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
