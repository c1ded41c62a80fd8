"""A real Slurm of two nodes on one Debian machine, as root: controller, accounting and two slurmd, all in one scratch folder.

    python tests/slurm/cluster.py install           # the Debian packages that are missing
    python tests/slurm/cluster.py start FOLDER      # then: export SLURM_CONF=FOLDER/slurm.conf
    python tests/slurm/cluster.py stop FOLDER

Every process of it, jobs included, has SLURM_CONF in its environment: that is how `stop` finds them all.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from machine import ClusterError, address, free_ports, install, why_not
from processes import environment, kill, open_files, started_with

MUNGE_FILES = ("key-file", "pid-file", "log-file", "seed-file", "socket")
NODES = ("n1", "n2")
SECONDS_TO_START = 60
SECONDS_TO_END = 10

# One CPU a node, though the machine may have others. Slurm puts a job back into the queue where its node died; it may begin
# again after `cred_expire` seconds.
SLURM_CONF = """
ClusterName=ntml
SlurmctldHost={host}({address})
SlurmctldPort={controller_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthInfo=socket={folder}/munge.socket,cred_expire=10
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=5
SlurmdTimeout=10
SchedulerParameters=sched_interval=2,bf_interval=5
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={address}
AccountingStoragePort={accounting_port}
AccountingStoragePass={folder}/munge.socket
{nodes}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

SLURMDBD_CONF = """
DbdHost={host}
DbdAddr={address}
DbdPort={accounting_port}
CommunicationParameters=NoInAddrAny
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""


class Cluster:
    """The cluster below `folder`, which must be empty or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.conf = self.folder / "slurm.conf"
        self._mark = f"SLURM_CONF={self.conf}"
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SACCT"))},
            "SLURM_CONF": str(self.conf),
            "MYSQL_UNIX_PORT": str(self.folder / "mariadb.socket"),
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }

    def start(self) -> None:
        """Raises ClusterError; nothing of it runs then."""
        reason = why_not()
        if reason is not None:
            raise ClusterError(reason)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        folder, host = self.folder, socket.gethostname().partition(".")[0]
        controller, accounting, *ports = free_ports(2 + len(NODES))
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr={address()} Port={port} CPUs=1 RealMemory=4000"
            for name, port in zip(NODES, ports, strict=True)
        )
        values = {
            "folder": folder,
            "host": host,
            "address": address(),
            "controller_port": controller,
            "accounting_port": accounting,
            "nodes": nodes,
        }
        self.conf.write_text(SLURM_CONF.format(**values))
        accounting_conf = folder / "slurmdbd.conf"
        accounting_conf.touch(mode=0o600)
        accounting_conf.write_text(SLURMDBD_CONF.format(**values))
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir()

        files = [f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in MUNGE_FILES]
        self._daemon("munged", "--foreground", "--force", "--num-threads=10", *files)
        database = ("--no-defaults", "--user=root", f"--datadir={folder}/mariadb")
        self._run("mariadb-install-db", *database, "--skip-test-db")
        files = (f"--socket={folder}/mariadb.socket", f"--pid-file={folder}/mariadb.pid")
        self._daemon("mariadbd", *database, "--skip-networking", *files)
        self._wait("munged", lambda: (folder / "munge.socket").exists())
        ping = ("mariadb-admin", "--no-defaults", f"--socket={folder}/mariadb.socket", "ping")
        self._wait("the database", lambda: self._works(*ping))
        self._daemon("slurmdbd", "-D")
        self._wait("the accounting", lambda: self._works("sacctmgr", "-i", "add", "cluster", "ntml"))
        self._daemon("slurmctld", "-D", "-c")
        for node in NODES:
            self.start_node(node)
        self._wait("the nodes", lambda: set(self.command("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"})

    def start_node(self, node: str) -> None:
        self._daemon("slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """What a power cut leaves: no slurmd and none of the node's jobs; the controller is told that the node is down."""
        log = str(self.folder / f"slurmd-{node}.log")
        pids = started_with(self._mark)
        # Those that would report the end of a job (slurmd and slurmstepd have the log open), then the jobs.
        daemons = [pid for pid in pids if log in open_files(pid)]
        for pid in [*daemons, *(pid for pid in pids if f"SLURMD_NODENAME={node}" in environment(pid))]:
            kill(pid, signal.SIGKILL)
        self.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def resume_node(self, node: str) -> None:
        """Bring a killed node back and wait until it takes jobs."""
        self.start_node(node)
        self.command("scontrol", "update", f"nodename={node}", "state=resume")
        ready = {"idle", "allocated", "mixed"}
        self._wait(f"node {node}", lambda: self.command("sinfo", "-h", "-n", node, "-o", "%T").strip() in ready)

    def command(self, *words: str) -> str:
        """The output of one of Slurm's commands on this cluster; CalledProcessError where it fails."""
        return subprocess.run(words, env=self.environment, check=True, capture_output=True, text=True, timeout=60).stdout

    def clear(self) -> None:
        """Cancel all jobs and wait until none is left."""
        self.command("scancel", "--user=root")
        self._wait("an empty queue", lambda: not self.command("squeue", "-h"))

    def next_job(self) -> int:
        """The number that the next job gets: it says whether any was submitted."""
        (line,) = [line for line in self.command("scontrol", "show", "config").splitlines() if line.startswith("NEXT_JOB_ID")]
        return int(line.partition("=")[2])

    def stop(self) -> None:
        """End every process, jobs included, however far `start` came. Logs stay, the database goes."""
        if self.conf.exists() and self._works("squeue"):
            self._works("scancel", "--user=root")
        for number, seconds in ((signal.SIGTERM, SECONDS_TO_END), (signal.SIGKILL, SECONDS_TO_END)):
            for pid in started_with(self._mark):
                kill(pid, number)
            deadline = time.monotonic() + seconds
            while started_with(self._mark) and time.monotonic() < deadline:
                time.sleep(0.1)
        for process in self._daemons:
            process.wait(SECONDS_TO_END)
        shutil.rmtree(self.folder / "mariadb", ignore_errors=True)

    def _daemon(self, *command: str) -> None:
        # In a session of its own: a Ctrl-C in the terminal is for the tests, which then call `stop`.
        with (self.folder / f"{command[0]}.out").open("ab") as output:
            process = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._daemons.append(process)

    def _run(self, *command: str) -> None:
        ended = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise ClusterError(f"{' '.join(command)}: {ended.stdout}{ended.stderr}")

    def _works(self, *command: str) -> bool:
        try:
            return subprocess.run(command, env=self.environment, capture_output=True, check=False, timeout=20).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _wait(self, what: str, is_there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                if is_there():
                    return
            except subprocess.CalledProcessError:
                pass
            if time.monotonic() > deadline:
                logs = "\n".join(
                    f"{path}:\n{path.read_text(errors='replace')[-1500:]}"
                    for path in sorted(self.folder.iterdir())
                    if path.suffix in (".log", ".out")
                )
                raise ClusterError(f"{what} did not come up within {SECONDS_TO_START} s\n{logs}")
            time.sleep(0.2)


def main(arguments: Sequence[str]) -> str | None:
    try:
        match arguments:
            case ["install"]:
                install()
            case ["start", folder]:
                cluster = Cluster(Path(folder))
                cluster.start()
                print(f"export SLURM_CONF={cluster.conf}")
            case ["stop", folder]:
                Cluster(Path(folder)).stop()
            case _:
                return __doc__
    except ClusterError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
