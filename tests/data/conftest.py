"""Banks, configurations, published files and a web server for the data tests, all small and real."""

import dataclasses
import gzip
import hashlib
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from benchmark.config.data_sections import DigitsConfig
from benchmark.data import published_files as originals


@pytest.fixture
def digits():
    """Five digits of 6x6 pixels, all different, none of them black."""
    return ((np.arange(5 * 36) * 37 + 11) % 251 + 1).astype(np.uint8).reshape(5, 6, 6)


@pytest.fixture
def data_config():
    """Make a DigitsConfig of small clips of `optdigits`; keywords replace its keys."""

    def make(**keys):
        small = {"digits": "optdigits", "digit_size": 8, "frame_size": 16, "context": 2, "horizon": 3}
        return DigitsConfig(**small | {"validation_clips": 3, "test_clips": 5} | keys)

    return make


@pytest.fixture
def idx_file():
    """The bytes of an MNIST image file of `images`, uint8 (n, h, w)."""

    def make(images, magic=2051, count=None):
        header = struct.pack(">4I", magic, len(images) if count is None else count, *images.shape[1:])
        return header + images.tobytes()

    return make


@pytest.fixture
def published():
    """An Original whose checksums are those of `content`, zipped if its name says so."""

    def make(content, like=originals.MNIST_TEST, urls=()):
        packed = gzip.compress(content, 1, mtime=0) if like.name.endswith(".gz") else content
        checksums = {"md5": hashlib.md5(packed).hexdigest(), "content_md5": hashlib.md5(content).hexdigest()}
        return dataclasses.replace(like, urls=urls, **checksums), packed

    return make


@pytest.fixture
def web(monkeypatch):
    """A real web server: `web.pages[path] = (status, body, stated length)`; `web.url(path)`; `web.asked`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            status, body, length = self.server.pages.get(self.path, (404, b"not here", 8))
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.pages, server.asked = {}, []
        server.url = lambda path: f"http://127.0.0.1:{server.server_address[1]}{path}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
