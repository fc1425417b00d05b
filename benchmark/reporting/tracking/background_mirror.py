"""MLflow beside a training: a thread sends what is new, and the training waits for no store that is away."""

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from benchmark.reporting.tracking.address import OFF, TrackingUnavailable, tracking_uri
from benchmark.reporting.tracking.mirror import mirror
from benchmark.reporting.tracking.store import load
from benchmark.system.console import Stopwatch, command_line, echo
from benchmark.system.errors import hide_secrets
from benchmark.system.installation import PROGRAM
from benchmark.system.processes import first_alone

LOOK_EVERY_S = 1.0
LONGEST_PAUSE_S = 60.0
"""While the store is away, it is tried again after 1, 2, 4 and so on up to this many seconds; no pause is longer."""
PATIENCE_S = 10.0
"""How long a training that has ended waits for a mirror, counted from where that began."""
SHARE = 0.01
"""How much of its time the thread may compute, pauses permitting: meanwhile others of its process wait."""
WORTH_SAYING_S = 10.0
"""Seconds for checkpoints and MLflow from which on they are said: fewer matter to nobody, however short the run."""


class BackgroundMirror:
    """For the body, mirrors run folders whenever their `status.json` changes, which is written last of all files.

    A store that is away is said once, and once when it is back. What is not sent by the end is said too; nothing is
    lost by that, since truth lies in the folders. The thread may be cut off at any moment. A body that ends well ends
    with a line of what checkpoints and MLflow cost, if that is `WORTH_SAYING_S`.

    Args:
        folders: the run folders; they need not exist yet.
        watch: of the training, which knows what its checkpoints cost.
    """

    def __init__(self, folders: Sequence[Path], watch: Stopwatch) -> None:
        self._watch = watch
        self.cpu_s = 0.0
        """Processor time of the mirrors, the import of MLflow left out."""
        self.waited_s = 0.0
        """How long the body's end waited for the last mirror, the import left out too."""
        self._sent = {folder: _stamp(folder) for folder in folders}
        self._over = threading.Event()
        self._away = self._abandoned = False
        self._began_s: float | None = None
        self._loaded_s = 0.0
        self._thread = threading.Thread(target=self._work, name="mirroring", daemon=True)

    def __enter__(self) -> "BackgroundMirror":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the last mirror end, unless the store did not answer before; say what is not sent."""
        ended_s = time.monotonic()
        self._over.set()
        while self._thread.is_alive() and not self._hopeless():
            self._thread.join(0.05)
        self._abandoned = True
        self.waited_s = time.monotonic() - max(ended_s, self._loaded_s)
        if unsent := self._changed():
            command = command_line(*PROGRAM.split(), "sync", "--results-dir", unsent[0].parents[3])
            echo(
                f"not yet in MLflow: {', '.join(map(command_line, unsent))}; `{command}` sends what is missing",
                sys.stderr,
            )
        if kind is None:
            self._say_overhead()

    @first_alone
    def _say_overhead(self) -> None:
        """Say what checkpoints and MLflow cost this process, the import of MLflow left out, where that is much."""
        total_s, seconds = self._watch.total_s(), [self._watch.saving_s, self.cpu_s, self.waited_s]
        if sum(seconds) < WORTH_SAYING_S:
            return
        echo(
            "{:.2f} s for checkpoints, {:.2f} s of processor time for MLflow, {:.2f} s of waiting for it at the end: "
            "{:.2%} of {:.1f} s".format(*seconds, sum(seconds) / total_s, total_s),
            sys.stderr,
        )

    def _hopeless(self) -> bool:
        began_s = self._began_s
        return self._away or (began_s is not None and time.monotonic() - began_s > PATIENCE_S)

    def _changed(self) -> list[Path]:
        """The folders that are not yet mirrored as they are now; none while mirroring is switched off."""
        if tracking_uri() == OFF:
            return []
        return [folder for folder, sent in self._sent.items() if _stamp(folder) != sent]

    def _work(self) -> None:
        try:
            self._mirror_changes()
        except Exception as error:  # an error of ours here must harm no training
            self._say(f"no longer sent to MLflow: {type(error).__name__}: {hide_secrets(str(error))}")
            self._away = True

    def _mirror_changes(self) -> None:
        over, pause_s = False, LOOK_EVERY_S
        while True:
            if changed := self._changed():
                pause_s = self._send(changed, pause_s)
            if over:
                return
            over = self._over.wait(pause_s)
            if over and self._away:
                return

    def _send(self, changed: list[Path], pause_s: float) -> float:
        """Mirror these folders; returns how long to leave the store alone."""
        computed_s = time.thread_time()
        try:
            load(tracking_uri())
            self._loaded_s, self._began_s, computed_s = time.monotonic(), time.monotonic(), time.thread_time()
            for folder in changed:
                stamp = _stamp(folder)
                mirror(folder)
                self._sent[folder] = stamp
        except TrackingUnavailable as error:
            if not self._away:
                self._say(f"not sent to MLflow yet: {error}")
                pause_s = LOOK_EVERY_S / 2
            self._away = True
            return min(2 * pause_s, LONGEST_PAUSE_S)
        finally:
            self._began_s, computed_s = None, time.thread_time() - computed_s
            self.cpu_s += computed_s
        if self._away:
            self._say("MLflow is back; what was missing there has been sent")
        self._away = False
        return min(max(LOOK_EVERY_S, computed_s / SHARE), LONGEST_PAUSE_S)

    def _say(self, line: str) -> None:
        if not self._abandoned:
            echo(line, sys.stderr)


def _stamp(folder: Path) -> tuple[int, int] | None:
    """Tells one `status.json` of `folder` from the next; None where there is none."""
    try:
        status = (folder / "status.json").stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino
