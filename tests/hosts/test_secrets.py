"""No secret of the controller is anywhere it could be seen, in a whole drill: backup, rehearsal, a failed restore, a good one.

The lab's hosts are containers: their processes are seen in this machine's /proc, and their files below a process's root.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab import mongod
from lab.hosts import inside, lose, present
from lab.podman import ROOT, podman
from lab.shapes import Host

# What a run writes in passing, on hosts and here.
PASSING = ("tmp", "var/tmp", "var/lib/juju-dr", "run/juju-dr", "root/.ansible", "home/ubuntu/.ansible")
SMALL = 8 * 1024 * 1024
SCALARS = ("statepassword", "apipassword", "oldpassword")
KEYS = ("caprivatekey", "controllerkey", "stateserverkey", "sharedsecret", "systemidentity")
# Reads what the database keeps secret, as the machine agent.
FROM_DATABASE = """
import json
from ansible.module_utils.juju_dr.controller_host import controller_client
juju = controller_client("/var/lib/juju", "/var/snap/juju-db/common").juju
served = juju.controllers.find_one({"_id": "stateServingInfo"}) or {}
users = [str(user["passwordhash"]) for user in juju.users.find({"passwordhash": {"$nin": [None, ""]}})]
machines = [str(m["passwordhash"]) for m in juju.machines.find({"passwordhash": {"$nin": [None, ""]}})]
print(json.dumps({"users": users, "machines": machines, "served": {k: v for k, v in served.items() if isinstance(v, str)}}))
"""


class Canaries:
    """Secrets by what they are; only bytes that cannot be there by chance."""

    def __init__(self) -> None:
        self._by_value: dict[bytes, str] = {}
        self._sought: re.Pattern[bytes] | None = None

    def add(self, name: str, text: str) -> None:
        """A password as a whole; of a key its middle lines."""
        lines = [line.strip() for line in text.strip().splitlines() if "-----" not in line]
        for line in lines[1:-1] if len(lines) > 2 else lines:
            if len(line) >= 12:
                self._by_value.setdefault(line.encode(), name)
        self._sought = re.compile(b"|".join(re.escape(value) for value in self._by_value))

    def names(self) -> set[str]:
        return set(self._by_value.values())

    def in_bytes(self, content: bytes) -> set[str]:
        assert self._sought is not None
        return {self._by_value[found] for found in self._sought.findall(content)}


def collect(host: str, identity: Path) -> Canaries:
    """The real secrets of a controller, and the key that its archive is encrypted to."""
    canaries = Canaries()
    conf = yaml.safe_load(inside(host, ["cat", "/var/lib/juju/agents/machine-0/agent.conf"]))
    for name in (*SCALARS, *KEYS):
        if conf.get(name):
            canaries.add(f"agent.conf {name}", str(conf[name]))
    pem = inside(host, ["cat", "/var/snap/juju-db/common/server.pem"])
    canaries.add("server.pem", pem[pem.index("PRIVATE KEY") :].partition("\n")[2].partition("-----END")[0])
    canaries.add("shared-secret", inside(host, ["cat", "/var/snap/juju-db/common/shared-secret"]))
    canaries.add("system-identity", inside(host, ["cat", "/var/lib/juju/system-identity"]))
    stored = json.loads(inside(host, ["python3", "-c", FROM_DATABASE]))
    for value in stored["users"]:
        canaries.add("a user's password hash", value)
    for value in stored["machines"]:
        canaries.add("a machine's password hash", value)
    for name in KEYS:
        canaries.add(f"stateServingInfo {name}", stored["served"].get(name, ""))
    canaries.add("the identity", identity.read_text(encoding="utf-8").splitlines()[-1])
    return canaries


class Watch:
    """Looks again and again at command lines, environments and readable files of this machine and of the hosts."""

    def __init__(self, canaries: Canaries, here: list[Path]) -> None:
        self.hits: set[str] = set()
        self.processes = 0
        self._canaries, self._here = canaries, here
        self._last: set[str] = set()
        self._before_last: set[str] = set()
        self._read: set[tuple[str, int, int]] = set()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._again, args=(look, every)) for look, every in self._looks()]

    def _looks(self) -> list[tuple[object, float]]:
        return [(self._look_at_processes, 0.02), (self._look_at_files, 0.5)]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert all(thread.is_alive() for thread in self._threads), "a watch ended early"
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _again(self, look: object, every: float) -> None:
        assert callable(look)
        while not self._ended.wait(every):
            look()

    def _look_at_processes(self) -> None:
        there = {name for name in os.listdir("/proc") if name.isdigit()}
        # Twice: a process that was just made runs another program soon.
        fresh = there - self._before_last
        self._before_last, self._last = self._last & there, there
        self.processes += len(fresh)
        for pid in fresh:
            for part in ("cmdline", "environ"):
                with contextlib.suppress(OSError):
                    content = Path("/proc", pid, part).read_bytes()
                    for name in self._canaries.in_bytes(content):
                        self.hits.add(f"{name} in {part} of {content[:60]!r}")

    def _look_at_files(self) -> None:
        for host, root in roots():
            for folder in PASSING:
                self._look_below(host, root / folder)
        for place in self._here:
            self._look_below("here", place)

    def _look_below(self, where: str, folder: Path) -> None:
        """Follows what anybody but root may enter."""
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False) and status.st_mode & 0o011:
                        self._look_below(where, Path(entry.path))
                    elif entry.is_file(follow_symlinks=False) and status.st_mode & 0o044 and status.st_size < SMALL:
                        which = (entry.path, status.st_mtime_ns, status.st_size)
                        if which in self._read:
                            continue
                        self._read.add(which)
                        for name in self._canaries.in_bytes(Path(entry.path).read_bytes()):
                            self.hits.add(f"{name} in {where}: {entry.path}, mode {status.st_mode & 0o777:04o}")


def roots() -> list[tuple[str, Path]]:
    """Each host with its file system, seen from here."""
    found = []
    hosts: list[Host] = []
    # One may be lost, and their list be written, just now.
    with contextlib.suppress(ValueError):
        hosts = present()
    for host in hosts:
        with contextlib.suppress(SystemExit):
            pid = podman("inspect", "--format", "{{.State.Pid}}", f"juju-dr-{host.name}").strip()
            found.append((host.name, Path(f"/proc/{pid}/root")))
    return found


def lab(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "lab", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def told_by(host: str) -> bytes:
    """What a host keeps of a run in logs and small files, whoever may read them."""
    journal = inside(host, ["sh", "-c", "journalctl --no-pager --all; cat /var/log/syslog /var/log/auth.log 2>/dev/null; true"])
    kept = inside(host, ["sh", "-c", KEPT])
    assert "juju_" in journal, "the journal holds no word of a module"
    return (journal + kept).encode()


# The archives themselves, and what is unpacked of one, hold every secret and are closed to everybody.
KEPT = r"""
find /var/lib/juju-dr /run/juju-dr -type f -size -8M \( -name '*.json' -o -name '*.txt' -o -name '*.log' -o -name '*.yml' \) \
  -not -path '*/unpacked/*' 2>/dev/null | xargs -r cat
"""


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "identity"
    subprocess.run(["age-keygen", "-o", str(path)], check=True, capture_output=True)
    path.chmod(0o600)
    return path


@pytest.fixture
def controller() -> Iterator[str]:
    lab("up", "single-2.9", "--documents", "1000")
    yield "c0"
    lab("down")


def test_no_secret_is_seen_in_a_whole_drill(controller: str, identity: Path, tmp_path: Path) -> None:
    canaries = collect(controller, identity)
    assert {"agent.conf statepassword", "a user's password hash", "the identity"} <= canaries.names()
    # A key may be known by another name as well.
    for path in ("snap/juju-db/common/server.pem", "snap/juju-db/common/shared-secret", "lib/juju/system-identity"):
        assert canaries.in_bytes(inside(controller, ["cat", f"/var/{path}"]).encode()), path
    recipient = subprocess.run(["age-keygen", "-y", str(identity)], check=True, capture_output=True, text=True).stdout.strip()
    binary = mongod.ensure()
    backups = tmp_path / "backups"
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    outputs: dict[str, bytes] = {}

    def run(name: str, playbook: str, variables: dict[str, object], *more: str, fails: bool = False) -> None:
        command = [str(Path(sys.executable).parent / "ansible-playbook"), f"playbooks/{playbook}.yml", "-vvvv", "--diff", *more]
        command += ["--inventory", "inventory/lab", "--extra-vars", json.dumps({**variables, "backup_dest": str(backups)})]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
        outputs[name] = done.stdout + done.stderr
        assert bool(done.returncode) == fails, outputs[name][-3000:].decode()

    with Watch(canaries, [Path("/tmp"), Path("/var/tmp"), Path.home() / ".ansible", ROOT / ".ansible"]) as watch:
        run("backup", "backup", {"backup_recipients": [recipient]})
        (archive,) = backups.glob("*.age")
        given: dict[str, object] = {"archive": str(archive), "identity": str(identity)}
        rehearsal = {"rehearse_mongod": str(binary.binary), "rehearse_environment": dict(binary.environment)}
        run("verify", "verify", {"rehearse": True, **rehearsal, **given})
        outputs["the lost controller"] = told_by(controller)
        lose([host for host in present() if host.role == "controller"])
        lab("spare", "n0", "--bare")
        run("look", "restore", given, "--check")
        run("failed restore", "restore", {"rewrite_addresses_skip_rules": ["machine-observed-addresses"], **given}, fails=True)
        run("restore", "restore", given)
        outputs["the new controller"] = told_by("n0")
    for report in [*backups.glob("*.json"), *backups.glob("*.txt")]:
        outputs[report.name] = report.read_bytes()
    assert len(outputs) >= 10
    hits = {f"{name} in the output of: {where}" for where, text in outputs.items() for name in canaries.in_bytes(text)}
    assert sorted(hits | watch.hits) == []
    assert watch.processes > 200
    # The watch itself: what must be found is found.
    assert canaries.in_bytes(b"x" + inside("n0", ["cat", "/var/lib/juju/system-identity"]).encode())
