"""What reaches the user as a message instead of a traceback."""

import difflib
import re
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_LONGEST = 100
_PLAIN = re.compile(r"[\w\[\]-]{1,60}")
_USER_INFO = re.compile(r"(://)[^\s/]\S*@")
_QUERY_VALUE = re.compile(r"([?&;][^\s?&;=]+=)(?!\s)\S*?(?=[&;\s]|[:,.)\"'`]+(?:\s|$)|$)")
"""`?key=value` and `&key=value`; a sign that ends a sentence is none of the value."""
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _LONGEST
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 20


class UserError(ValueError):
    """A mistake in what the user gave: the message says what, where, what is allowed and what to do."""


class ProcessError(UserError):
    """One that a single process of a run may meet, which then says it itself, whichever it is."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` says that memory could not be had, as Python, PyTorch or a library of CUDA says it."""
    phrases = ("can't allocate memory", "annot allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")
    return isinstance(error, MemoryError) or any(words in str(error) for words in phrases)


def hide_secrets(text: str) -> str:
    """`text` with user, password and all values of the query of every URI left out, wherever the URI has them."""
    text = _USER_INFO.sub(r"\1", text)
    return _QUERY_VALUE.sub(r"\1...", text)


def shortened(value: object) -> str:
    """`value` as Python writes it, in one line of at most 100 characters."""
    shown = _REPR.repr(value)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."


def unknown(kind: str, value: object, allowed: Iterable[object], known: Iterable[str] = ()) -> str:
    """Message for a name that is not among `allowed`, with the one that is meant or, where none is, the nearest one.

    Args:
        known: all names of the kind. One of them in another spelling, as `spelling` has it, is what is meant: where it
            is not allowed, no other name is suggested in its place.
    """
    names = [str(name) for name in allowed]
    word = str(value)[:_LONGEST]
    meant = [name for name in (*names, *known) if spelling(name) == spelling(word)]
    if meant and meant[0] not in names:
        meant = [] if meant[0] == word else [f"{meant[0]!r}, which is not allowed here"]
    else:
        near = meant[:1] or difflib.get_close_matches(word, names, n=1)
        meant = [f"{near[0]!r}?"] if near else []
    hint = f"; did you mean {meant[0]}" if meant else ""
    return f"unknown {kind} {shortened(value)}{hint} (allowed: {', '.join(names)})"


def spelling(name: str) -> str:
    """What the spellings of a name have in common: case, hyphens, blanks do not count, `+` and `plus` are `p`."""
    return re.sub(r"[\s_-]", "", name.lower().replace("plus", "p").replace("+", "p"))


def explain(error: ValueError, model: type[BaseModel]) -> str:
    """The first mistake that validation as `model` found, in one line: key, value and what is allowed."""
    if not isinstance(error, ValidationError):
        return str(error)
    details = error.errors()
    first = details[0]
    where, section = locate(first["loc"], model)
    if first["type"] == "extra_forbidden":
        message = unknown("key", first["loc"][-1], section.model_fields if section else ())
    elif first["type"] == "value_error":
        message = str(first["ctx"]["error"])  # pyright: ignore[reportTypedDictNotRequiredAccess]  # there for this type
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] in {"model_type", "dict_type"}:
        message = f"{shortened(first['input'])} is not a mapping of keys to values"
    else:  # the alternatives of a union are one mistake
        same = [detail["msg"] for detail in details if locate(detail["loc"], model)[0] == where]
        message = f"{shortened(first['input'])}: {', or '.join(text[:1].lower() + text[1:] for text in same)}"
    # Pydantic counts a list whose entries are wrong as too short as well.
    places = {locate(detail["loc"], model)[0] for detail in details if detail["type"] != "too_short"} - {where}
    return (f"{where}: {message}" if where else message) + (f" (and {len(places)} more)" if places else "")


def locate(location: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, type[BaseModel] | None]:
    """The dotted key at `location` of `model`, and the section that holds it; pydantic's names of types left out."""
    keys: list[str] = []
    section, inner = model, [model]
    for part in location:
        if len(inner) > 1 and part in (named := {one.__name__: one for one in inner}):
            inner = [named[part]]
            continue
        if isinstance(part, str):
            if not inner:
                break
            section, inner = inner[0], _sections(inner[0], part)
        keys.append(str(part) if _PLAIN.fullmatch(str(part)) else shortened(part))
    return ".".join(keys), section


def _sections(model: type[BaseModel], key: str) -> list[type[BaseModel]]:
    """The models that the values of `key` may have; none for plain values."""
    field = model.model_fields.get(key)
    return list(_models(field.annotation)) if field else []


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
