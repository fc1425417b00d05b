"""Commands in real processes, each forked from one that has imported all it needs and run nothing."""

import atexit
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Job:
    """A command in a process of its own."""

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
        return self.code, self.output.read_text(errors="replace")


class Forker:
    """Starts `python -m benchmark`, one at a time, which writes to the MLflow store in `folder`."""

    program = "benchmark"

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.server = subprocess.Popen(
            [sys.executable, __file__, self.program],
            cwd=folder,
            env=self.surroundings(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def surroundings(self):
        """The environment of the process that forks."""
        return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(self, *arguments, spare_mib=None, environment=None):
        """Start a command in the current folder.

        With `spare_mib`, it gets no more memory than that beyond what its process has at its start. With `environment`
        it finds these variables, and its output has the encoding that PYTHONIOENCODING names.
        """
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{self.folder / 'mlflow.db'}"}
        named = environment or {}
        return self._fork(arguments, Path.cwd(), os.environ | store | named, spare_mib=spare_mib, named=named)

    def run(self, *arguments, **keys):
        """Exit status and output of a verb."""
        return self.start(*arguments, **keys).wait()

    def close(self):
        """End the process that forks."""
        self.server.kill()
        self.server.wait()

    def _fork(self, arguments, folder, environment, spare_mib=None, named=()):
        self.count += 1
        output = self.folder / f"job-{self.count}.log"
        task = {"arguments": [*map(str, arguments)], "output": str(output), "spare_mib": spare_mib}
        task |= {"folder": str(folder), "environment": dict(environment), "named": [*named]}
        self.server.stdin.write(json.dumps(task) + "\n")
        self.server.stdin.flush()
        return Job(self.server, int(self.server.stdout.readline()), output)


class SnakemakeForker(Forker):
    """Runs `python -m snakemake` in a folder, one at a time."""

    program = "snakemake"

    def surroundings(self):
        """Without a path to this checkout: Snakemake finds the code in the folder that it runs in."""
        return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(self, folder, environment, *arguments):
        """Exit status and output of Snakemake in `folder`."""
        return self._fork(arguments, folder, environment).wait()


@functools.cache
def snakemake_forker():
    """The one of this process, which ends with it."""
    folder = tempfile.TemporaryDirectory(prefix="snakemake-")
    started = SnakemakeForker(Path(folder.name))
    atexit.register(folder.cleanup)
    atexit.register(started.close)
    return started


def limit_memory(spare_mib):
    """Let this process have that many MiB more than now, and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + spare_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def benchmark_main():
    """The command line of the benchmark, with all that its verbs import."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    import torch._inductor  # noqa: F401  # what deterministic algorithms load

    import benchmark.evaluation.evaluate
    import benchmark.evaluation.gradient_probe
    import benchmark.training.train  # noqa: F401
    from benchmark.__main__ import main

    return main


def snakemake_main():
    """The command line of Snakemake, with all that it and our Snakefile import but our own code."""
    import pandas  # noqa: F401
    import pydantic  # noqa: F401
    from snakemake import cli

    cli.parse_args(["--cores", "1"])  # which looks for plugins
    return cli.main


def run_task(main, task):
    """Do in this process, which is forked for it, what `task` says; ends it."""
    os.chdir(task["folder"])
    os.environ.clear()
    os.environ.update(task["environment"])
    log = os.open(task["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if task["spare_mib"] is not None:
        limit_memory(task["spare_mib"])
    if task["named"]:
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # it reads the environment when it is imported
    if "PYTHONIOENCODING" in task["named"]:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding=task["environment"]["PYTHONIOENCODING"], errors="strict")
    code = 1
    try:
        code = main(task["arguments"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def serve(program):
    """For each line of standard input, run what it says in a new process; print its pid and then its wait status."""
    main = benchmark_main() if program == "benchmark" else snakemake_main()
    for line in sys.stdin:
        task = json.loads(line)
        pid = os.fork()
        if not pid:
            if program == "snakemake":
                os.setsid()
                sys.path[0] = task["folder"]
                sys.argv[:] = ["snakemake", *task["arguments"]]
            run_task(main, task)
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
