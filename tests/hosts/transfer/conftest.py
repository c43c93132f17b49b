"""A machine to send archives to and fetch them from, alone in its lab."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.transfer.playing import ROOT, Ansible


def lab(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "lab", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="package")
def spare() -> Iterator[str]:
    """A machine with juju-db installed and nothing else."""
    lab("down")
    lab("spare", "n0")
    yield "n0"
    lab("down")


@pytest.fixture
def ansible(tmp_path: Path) -> Iterator[Ansible]:
    # A socket's path has at most 100 bytes.
    sockets = tempfile.mkdtemp(prefix="ssh-")
    yield Ansible(tmp_path, sockets)
    for socket in Path(sockets).iterdir():
        subprocess.run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "host"], capture_output=True, check=False)
    # Those that have just ended remove their own.
    shutil.rmtree(sockets, ignore_errors=True)
