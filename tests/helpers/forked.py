"""Verbs in real processes, each forked from one that has imported all it needs and run nothing."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Job:
    """A verb in a process of its own."""

    def __init__(self, server, pid, output):
        self.server, self.pid, self.output, self.code = server, pid, output, None

    def running(self):
        """Whether it still runs; a dead process that nobody asked for does not."""
        return Path(f"/proc/{self.pid}/stat").exists() and " Z " not in Path(f"/proc/{self.pid}/stat").read_text()

    def send(self, number):
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self):
        """Its exit status, negative for the signal that ended it, as `subprocess` has it; and what it printed."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(int(self.server.stdout.readline()))
        return self.code, self.output.read_text()


class Forker:
    """Starts verbs, one at a time, which write to the MLflow store in `folder`."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start(self, *arguments, spare_mib=None, environment=None):
        """Start a command; with `spare_mib`, it gets no more memory than that beyond what its process has at its start.

        With `environment` it finds these variables, and its output has the encoding that PYTHONIOENCODING names.
        """
        self.count += 1
        output = self.folder / f"job-{self.count}.log"
        task = {"arguments": [*map(str, arguments)], "output": str(output), "spare_mib": spare_mib}
        task["environment"] = environment or {}
        task["store"] = f"sqlite:///{self.folder / 'mlflow.db'}"
        self.server.stdin.write(json.dumps(task) + "\n")
        self.server.stdin.flush()
        return Job(self.server, int(self.server.stdout.readline()), output)

    def run(self, *arguments, **keys):
        """Exit status and output of a verb."""
        return self.start(*arguments, **keys).wait()

    def close(self):
        """End the process that forks."""
        self.server.kill()
        self.server.wait()


def limit_memory(spare_mib):
    """Let this process have that many MiB more than now, and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + spare_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def serve():
    """For each line of standard input, run what it says in a new process; print its pid and then its wait status."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    import torch._inductor  # noqa: F401  # what deterministic algorithms load

    import benchmark.evaluation.evaluate
    import benchmark.evaluation.gradient_probe
    import benchmark.training.train  # noqa: F401
    from benchmark.__main__ import main

    for line in sys.stdin:
        task = json.loads(line)
        pid = os.fork()
        if not pid:
            log = os.open(task["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if task["spare_mib"] is not None:
                limit_memory(task["spare_mib"])
            os.environ["MLFLOW_TRACKING_URI"] = task["store"]
            if task["environment"]:
                os.environ |= task["environment"]
                for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
                    del sys.modules[name]  # it reads the environment when it is imported
            encoding = task["environment"].get("PYTHONIOENCODING")
            for stream in (sys.stdout, sys.stderr) if encoding else ():
                stream.reconfigure(encoding=encoding, errors="strict")
            code = 1
            try:
                code = main(task["arguments"])
            except BaseException:
                sys.excepthook(*sys.exc_info())
            sys.stdout.flush()
            os._exit(code)
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    serve()
