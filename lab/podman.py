"""podman as root: containers of the lab have addresses of their own, which rootless networks do not give."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".lab"


def as_root(command: list[str]) -> list[str]:
    """The command, by sudo when this is no root shell."""
    return command if os.geteuid() == 0 else ["sudo", *command]


def podman(*arguments: str, stdin: str | bytes | None = None, check: bool = True) -> str:
    """Runs podman and returns what it printed.

    :raises SystemExit: it failed; its own words are shown.
    """
    # crun refuses hybrid control groups, which nested machines often have.
    runtime = ["--runtime", "runc"] if shutil.which("runc") or Path("/usr/sbin/runc").exists() else []
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(as_root(["podman", *runtime, *arguments]), input=data, capture_output=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"podman {' '.join(arguments[:4])} …: {done.stderr.decode('utf-8', 'replace').strip()[-2000:]}")
    return done.stdout.decode("utf-8", "replace")


def limits() -> list[str]:
    """Limits at or under this machine's own: podman asks for more, which a nested machine may not give."""
    files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 20000)
    processes = min(resource.getrlimit(resource.RLIMIT_NPROC)[1], 10000)
    flags = []
    for name, value in (("nofile", files), ("nproc", processes)):
        number = value if value > 0 else 10000
        flags += ["--ulimit", f"{name}={number}:{number}"]
    return flags
