"""What this machine must have for a Slurm of its own, and how it gets it."""

import os
import shutil
import socket
import subprocess

PACKAGES = ("slurm-wlm", "munge", "slurmdbd", "mariadb-server")
PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sacctmgr")


class ClusterError(RuntimeError):
    """The cluster cannot be, or did not come up."""


def why_not() -> str | None:
    """Why there can be no cluster here; None where there can."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    missing = [program for program in PROGRAMS if not which(program)]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: {' '.join(PACKAGES)})"
    if not address().startswith("127."):
        return f"this machine's name stands for {address()}, where Slurm would listen; it must stand for the loopback interface"
    return None


def install() -> None:
    """Install the Debian packages that are missing; ClusterError where there can be no cluster even then."""
    if os.geteuid() == 0 and any(not which(program) for program in PROGRAMS):
        print(f"Installing the Debian packages {' '.join(PACKAGES)} ...", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (("update", "-qq"), ("install", "-qq", "--yes", "--no-install-recommends", *PACKAGES)):
            ended = subprocess.run(("apt-get", *command), env=environment, capture_output=True, text=True, check=False)
            if ended.returncode:
                raise ClusterError(f"apt-get {command[0]}: {ended.stdout}{ended.stderr}")
    reason = why_not()
    if reason is not None:
        raise ClusterError(reason)


def which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def address() -> str:
    """What this machine's name stands for: where Slurm listens when it is told not to listen everywhere."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "nothing"


def free_ports(count: int) -> list[int]:
    held = [socket.create_server((address(), 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports
