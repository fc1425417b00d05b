"""Real MLflow servers and PostgreSQL for tests, and a gate that makes a server fail in chosen ways; all on loopback."""

import contextlib
import http.client
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STARTS_WITHIN_S = 120.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Server:
    """`mlflow server` on a port that stays the same when it is killed and started again."""

    def __init__(self, backend: str, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._backend, self._folder = backend, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--artifacts-destination", str(self._folder / "artifacts")]
        environment = os.environ | {
            "MLFLOW_BACKEND_STORE_URI": self._backend,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        environment.pop("MLFLOW_TRACKING_URI", None)
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        ended = time.monotonic() + STARTS_WITHIN_S
        while not self._answers():
            told = (self._folder / "server.log").read_text()
            assert self._process.poll() is None, told
            assert time.monotonic() < ended, told
            time.sleep(0.1)

    def kill(self) -> None:
        """As `kill -9` of the server and its workers does it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return answer.status == 200
        except (OSError, http.client.HTTPException):
            return False


def find_postgres() -> Path | None:
    """The folder of `initdb`; Debian keeps it off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextlib.contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """A fresh PostgreSQL; yields its URI. As root it runs as the user `nobody`, since it refuses root."""
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        yield from _postgres(programs, Path(folder))


def _postgres(programs: Path, folder: Path) -> Iterator[str]:
    port, as_user = free_port(), {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    options = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "check": True, **as_user}
    create = [programs / "initdb", "-D", folder / "data", "-U", "mlflow", "--auth=trust", "--encoding=UTF8"]
    subprocess.run([*create, "--no-locale", "--no-sync"], **options)
    settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    del options["check"]
    options["stderr"] = subprocess.DEVNULL
    command = [programs / "postgres", "-D", folder / "data", "-p", str(port), *settings]
    server = subprocess.Popen(command, start_new_session=True, **options)
    try:
        ended = time.monotonic() + STARTS_WITHIN_S
        ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "-d", "postgres"]
        while subprocess.run(ready).returncode:
            assert server.poll() is None, "PostgreSQL did not start"
            assert time.monotonic() < ended, "PostgreSQL does not answer"
            time.sleep(0.1)
        yield f"postgresql://mlflow:a-secret@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # its fast shutdown, which ends its children too
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


class Gate:
    """A server that hands requests on to another, or fails: `fail(number, method, path)` names how for each request.

    Failures: `silent` (never answers), `slow` (waits `slow_s`, then hands on), a status such as `500`, `garbage`
    (200 and no JSON), `unheard` (drops the request), `unanswered` (hands it on and drops the answer).
    """

    def __init__(self, upstream: str = "", fail: Callable[[int, str, str], str | None] = lambda *_: None) -> None:
        self.upstream, self.fail, self.slow_s = upstream, fail, 10.0
        self.requests: list[str] = []
        self.pending = 0
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # clients that gave up are no news
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Gate":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(gate) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                gate.requests.append(f"{self.command} {self.path.partition('?')[0]}")
                failure = gate.fail(len(gate.requests), self.command, self.path)
                gate.pending += 1
                try:
                    if failure == "silent":
                        gate._closed.wait()
                    elif failure == "slow":
                        gate._closed.wait(gate.slow_s)
                    if failure in ("silent", "unheard"):
                        self.close_connection = True
                    elif failure == "garbage":
                        self.reply(200, b"<html>Please log in.</html>")
                    elif failure not in (None, "slow", "unanswered"):
                        self.reply(int(failure), b'{"error_code": "INTERNAL_ERROR", "message": "no"}')
                    else:
                        status, content = self.hand_on(body)
                        if failure == "unanswered":
                            self.close_connection = True
                        else:
                            self.reply(status, content)
                finally:
                    gate.pending -= 1

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def hand_on(self, body: bytes) -> tuple[int, bytes]:
                kept = {key: value for key, value in self.headers.items() if key.lower() not in ("host", "connection")}
                request = urllib.request.Request(gate.upstream + self.path, body or None, kept, method=self.command)
                try:
                    with urllib.request.urlopen(request, timeout=60) as answer:
                        return answer.status, answer.read()
                except urllib.error.HTTPError as error:
                    return error.code, error.read()

            def reply(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        return Handler
