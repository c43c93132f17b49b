"""The lab's hosts, for tests that need real ones: systemd, sshd, mongod. One lab at a time: they run one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.target import TARGET, Target

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
Playbook = Callable[..., "subprocess.Popen[str]"]


def lab(*arguments: str) -> None:
    """``python -m lab …``."""
    subprocess.run([sys.executable, "-m", "lab", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def lab_command() -> Iterator[Callable[..., None]]:
    """The lab's command line; whatever it left running is removed at the end."""
    yield lab
    lab("down")


@pytest.fixture
def playbook() -> Playbook:
    """Starts a playbook in a process group of its own; its output is one text."""

    def start(name: str, *arguments: str) -> subprocess.Popen[str]:
        command = [str(Path(sys.executable).parent / "ansible-playbook"), f"playbooks/{name}.yml", *arguments]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A bootstrapped spare alone in the lab: a restore's target that has an old state to put back."""
    lab("down")
    lab("spare", TARGET, "--bootstrapped", "2.9")
    made = Target(tmp_path_factory.mktemp("reports"))
    made.keep()
    yield made
    lab("down")


@pytest.fixture
def target(prepared: Target) -> Target:
    prepared.reset()
    return prepared
