"""A tiny protocol for the library, and a cache that is the test's own."""

import pytest

import deep_in_time as dit


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where prepared data goes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "deep-in-time"


@pytest.fixture
def tiny(protocol_values):
    """The tiny protocol."""
    return dit.protocol(protocol_values)
