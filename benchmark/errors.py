"""What reaches the user as a message instead of a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: the message says what, where, what is allowed and what to do."""


def unknown(kind: str, value: object, allowed: Iterable[object]) -> str:
    """Message for a name that is not among `allowed`, with the nearest one."""
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {value!r}{hint} (allowed: {', '.join(names)})"
