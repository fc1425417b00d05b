"""How far the tests go: `make test` tries each claim in small, `make test-all` in full, with tests marked `slow`."""

from typing import TypeVar

Count = TypeVar("Count")
full = False
"""Whether tests marked `slow` are among those asked for; conftest.py sets it before any test is read."""


def of(small: Count, whole: Count) -> Count:
    """What a test tries: `small` in `make test`, `whole` in `make test-all` (`pytest -m ""`)."""
    return whole if full else small
