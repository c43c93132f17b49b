"""What a measurement stands on: servers, databases of a size, processes of their own, and time."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible.module_utils
from pymongo import MongoClient

from lab.generator import grow
from lab.mongod import Mongod

ROOT = Path(__file__).resolve().parent.parent
ansible.module_utils.__path__.append(str(ROOT / "module_utils"))
from ansible.module_utils.juju_dr.load import load  # noqa: E402

FIXTURE = ROOT / "tests" / "data" / "fixtures" / "juju-2.9.61-single.tar.gz"
HOST_FILES = ROOT / "tests" / "data" / "fixtures" / "juju-2.9.61-controller-files.tar.gz"
# Of the grown database, blobs and all; a database of so many gigabytes has so many documents.
BYTES_A_DOCUMENT = 344
START_SECONDS = 60
Client = MongoClient[dict[str, Any]]


class Server:
    """One mongod on loopback."""

    def __init__(self, binary: Mongod, folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        command = [str(binary.binary), "--dbpath", str(folder), "--port", str(self.port), "--bind_ip", "127.0.0.1"]
        self._process = subprocess.Popen([*command, *arguments], env=binary.environment, stdout=subprocess.DEVNULL)
        self.client: Client = MongoClient("127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=60_000)
        self.client.admin.command("ping")

    def stop(self) -> None:
        self.client.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


@contextmanager
def standalone(binary: Mongod, folder: Path, *arguments: str) -> Iterator[Server]:
    """A server without replication, as a loading server is."""
    server = Server(binary, folder, *arguments)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def member(binary: Mongod, folder: Path) -> Iterator[Server]:
    """The primary of a replica set of one, as a controller has it."""
    with standalone(binary, folder, "--replSet", "juju", "--oplogSize", "1024") as server:
        admin = server.client.admin
        admin.command("replSetInitiate", {"_id": "juju", "members": [{"_id": 1, "host": f"127.0.0.1:{server.port}"}]})
        deadline = time.monotonic() + START_SECONDS
        while not admin.command("isMaster").get("ismaster"):
            if time.monotonic() > deadline:
                raise SystemExit(f"No primary within {START_SECONDS} s")
            time.sleep(0.05)
        yield server


@dataclass(frozen=True)
class Database:
    """A grown database: as a mongod has it on disk, and as a dump.

    :param gigabytes: as asked for, of 10^9 bytes.
    :param bytes: of its documents.
    """

    gigabytes: float
    dbpath: Path
    dump: Path
    documents: int
    bytes: int


def make_database(binary: Mongod, folder: Path, gigabytes: float) -> Database:
    """Grows a database in a new folder."""
    folder.mkdir()
    with tarfile.open(FIXTURE) as tar:
        tar.extractall(folder / "fixture", filter="fully_trusted")
    with standalone(binary, folder / "db", "--nojournal") as server:
        load(server.client, str(folder / "fixture" / "juju-backup"), [])
        grow(server.client, "2.9", int(gigabytes * 10**9 / BYTES_A_DOCUMENT), seed=1)
        done = ours("dump", port=server.port, dest=str(folder / "dump"), mode="offline")
    return Database(gigabytes, folder / "db", folder / "dump", done.result["documents"], done.result["bytes"])


@dataclass(frozen=True)
class Done:
    """A process that ended well: seconds from its start to its end, and what it told of itself."""

    seconds: float
    result: dict[str, Any]


def ours(job: str, **arguments: Any) -> Done:
    """Runs one job of :mod:`bench.jobs` in a process of its own."""
    return timed([sys.executable, "-m", "bench.jobs", job, json.dumps(arguments)])


def timed(command: Sequence[str]) -> Done:
    """Runs a command to its end; its output, if it is JSON, is its result.

    :raises SystemExit: it failed; with the end of what it said.
    """
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} failed:\n{done.stderr[-2000:]}")
    return Done(seconds, json.loads(done.stdout) if done.stdout.startswith("{") else {})


class DiskUse:
    """The most bytes that lay in a folder while something ran."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stop, self.most = folder, threading.Event(), 0
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.most = max(self.most, used(self._folder))

    def __enter__(self) -> DiskUse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def used(folder: Path) -> int:
    """Bytes of the files below a folder; files that come and go meanwhile count or not."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(where, name)).st_size
            except FileNotFoundError:
                continue
    return total


def emptied(folder: Path) -> Path:
    """The folder, without anything in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was before they were."""
    model = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = next((int(line.split()[1]) // 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def alternate(runs: int, minutes: float, *measures: Callable[[], float]) -> list[list[float]]:
    """Each measure so many times, one after the other in turn, so that a busy moment does not hit one of them alone.

    :param minutes: after these no further run is begun; each measure is taken once at least.
    """
    found: list[list[float]] = [[] for _ in measures]
    end = time.monotonic() + 60 * minutes
    for number in range(runs):
        if number and time.monotonic() > end:
            break
        for values, measure in zip(found, measures, strict=True):
            values.append(measure())
    return found
