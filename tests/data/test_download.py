"""Downloads from a real web server: whole and right, or not at all."""

import socket

import pytest

from benchmark.data.published_files import fetch
from benchmark.system.errors import UserError


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def offered(published, web):
    """An Original of 100 kB with two mirrors, and the bytes to serve for it."""
    return published(bytes(range(256)) * 400, urls=(web.url("/first"), web.url("/second")))


def test_good_file_arrives_and_is_reported(tmp_path, web, offered, capsys):
    original, packed = offered
    web.pages["/first"] = (200, packed, len(packed))
    path = fetch(original, tmp_path)
    assert path == tmp_path / "mnist" / original.name
    assert path.read_bytes() == packed
    assert files_below(tmp_path) == [path]
    assert web.asked == ["/first"]
    assert f"download {web.url('/first')}: " in capsys.readouterr().err


def test_present_file_is_not_fetched_again(tmp_path, web, offered):
    original, _ = offered
    path = tmp_path / "MNIST" / "raw" / original.name.removesuffix(".gz")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    assert fetch(original, tmp_path) == path
    assert web.asked == []


@pytest.mark.parametrize("kind", ["missing", "error", "truncated", "wrong"])
def test_next_mirror_is_tried_when_one_fails(tmp_path, web, offered, kind):
    original, packed = offered
    web.pages["/first"] = bad_page(kind, packed)
    web.pages["/second"] = (200, packed, len(packed))
    assert fetch(original, tmp_path).read_bytes() == packed
    assert web.asked == ["/first", "/second"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("missing", "404"), ("error", "503"), ("truncated", "IncompleteRead"), ("wrong", ", expected ")],
)
def test_failure_of_all_mirrors_names_file_and_reason_and_leaves_nothing(tmp_path, web, offered, kind, reason):
    original, packed = offered
    web.pages["/first"] = web.pages["/second"] = bad_page(kind, packed)
    with pytest.raises(UserError) as caught:
        fetch(original, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"download: {original.name} could not be had")
    assert web.url("/first") in message
    assert web.url("/second") in message
    assert reason in message
    assert f"put the file in {tmp_path / 'mnist'}" in message
    assert files_below(tmp_path) == []


def test_unreachable_host_is_named(tmp_path, published, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/gone"
        original, _ = published(b"digits", urls=(url,))
        with pytest.raises(UserError, match="refused"):
            fetch(original, tmp_path)


def bad_page(kind, packed):
    return {
        "missing": (404, b"no", 2),
        "error": (503, b"no", 2),
        "truncated": (200, packed[: len(packed) // 2], len(packed)),
        "wrong": (200, packed[:-1] + b"?", len(packed)),
    }[kind]
