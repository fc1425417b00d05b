"""A real Slurm on this one machine: its own munge key, ports and folders, no systemd; all of it ends with the command.

python tests/slurm/cluster.py snakemake --workflow-profile profiles/slurm all --config protocol=smoke

runs the command with this cluster to submit to, whose only user is whoever started it.
Debian: `apt-get install slurm-wlm munge`.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "squeue", "scontrol", "scancel", "srun", "sinfo")
STARTS_WITHIN_S = 60.0
MEMORY_MB = 64000
"""What the node claims to have: nothing here holds a job to it."""

# Without an accounting database the controller alone knows how a job ended, and forgets it after MinJobAge.
# Two GPUs that are only counted: jobs ask for them and wait for them as for real ones. The node claims more cores than
# the machine may have, since jobs spend much of their time in starting. A job of `urgent` preempts those of `normal`.
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={d_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=65000
KillWait=120
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=normal Nodes={host} Default=YES MaxTime=INFINITE PriorityTier=1 State=UP
PartitionName=urgent Nodes={host} MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF State=UP
"""


def missing() -> list[str]:
    """The programs of Slurm and munge that are not here."""
    return [name for name in (*DAEMONS, *CLIENTS) if find(name) is None]


def find(name: str) -> str | None:
    """The path of a program; daemons stand where only root's path leads."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")


@contextlib.contextmanager
def running() -> Iterator[dict[str, str]]:
    """A cluster with one node for the body.

    Yields:
        The environment of a user of it.

    Raises:
        RuntimeError: a daemon ended or did not answer; says which, and what its log says.
    """
    with contextlib.ExitStack() as ends:
        # Slurm's paths are short: a socket's may have 107 characters.
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        folder.chmod(0o755)
        environment = configure(folder)
        munged = ["--foreground", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket"]
        munged += [f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed", "--force"]
        munged += [f"--log-file={folder}/munge.log"]
        for name, options in {"munged": munged, "slurmctld": ["-D", "-i"], "slurmd": ["-D"]}.items():
            with (folder / f"{name}.out").open("ab") as out:
                daemon = subprocess.Popen([find(name), *options], env=environment, stdout=out, stderr=out)
            ends.callback(end, daemon)
            if name == "munged":
                wait_for(folder, daemon, (folder / "munge.socket").exists)
        ends.callback(cancel_all, environment)
        wait_for(folder, daemon, lambda: "idle" in told(environment, "sinfo", "--noheader", "--format=%T"))
        yield environment


def configure(folder: Path) -> dict[str, str]:
    """Write key and configuration below `folder`; the environment that leads daemons and clients to them."""
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    ctld_port, d_port = free_ports(2)
    values = {"host": host, "ctld_port": ctld_port, "d_port": d_port, "user": getpass.getuser(), "memory": MEMORY_MB}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, **values))
    (folder / "gpu0").touch()
    (folder / "gpu1").touch()
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/gpu[0-1]\n")
    # Jobs start `srun` without any variable of Slurm's, as it would find the configuration in /etc.
    (folder / "bin").mkdir()
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {find("srun")} "$@"\n')
    srun.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    path = f"{srun.parent}:{os.environ['PATH']}"
    return inherited | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as held:
        return [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def told(environment: dict[str, str], *command: str) -> str:
    """What a client of the cluster prints; nothing where it fails."""
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def wait_for(folder: Path, daemon: subprocess.Popen[bytes], ready) -> None:
    """Wait until `ready()`; an ended daemon or too long a wait shows the logs."""
    last = time.monotonic() + STARTS_WITHIN_S
    while not ready():
        if daemon.poll() is not None or time.monotonic() > last:
            logs = "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in sorted(folder.glob("*.out")))
            raise RuntimeError(f"Slurm did not start within {STARTS_WITHIN_S:.0f} s.\n{logs}")
        time.sleep(0.1)


def cancel_all(environment: dict[str, str]) -> None:
    """End all jobs, so that no process of one outlives the daemons."""
    jobs = told(environment, "squeue", "--noheader", "--format=%A").split()
    if jobs:
        told(environment, "scancel", "--full", "--signal=KILL", *jobs)
        told(environment, "scancel", *jobs)
    last = time.monotonic() + STARTS_WITHIN_S
    while told(environment, "squeue", "--noheader") and time.monotonic() < last:
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, if it still runs."""
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    """Run the command line's command on a cluster of its own."""
    if not sys.argv[1:]:
        sys.exit(f"usage: {sys.argv[0]} COMMAND [ARGUMENT ...]")
    if absent := missing():
        sys.exit(f"error: {', '.join(absent)}: not found; Debian: apt-get install slurm-wlm munge")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # and end all that runs here first
    with running() as environment, subprocess.Popen(sys.argv[1:], env=environment) as command:
        try:
            return command.wait()
        finally:
            end(command)


if __name__ == "__main__":
    sys.exit(main())
