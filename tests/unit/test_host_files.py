from __future__ import annotations

import os
import socket
import sqlite3
import threading
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr import host_files
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.host_files import copy_dqlite, gather


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for name in (
        "juju/agents/machine-0/agent.conf",
        "juju/agents/unit-controller-0/agent.conf",
        "juju/server.pem",
        "juju/nonce.txt",
        "juju/tools/3.6.26-ubuntu-amd64/jujud",
        "juju/db/collection.wt",
        "juju/locks/lock",
        "juju/dqlite/metadata1",
        "common/shared-secret",
        "common/juju-db.config",
        "common/db/collection.wt",
        "common/logs/mongodb.log",
        "log/machine-0.log",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "juju/tools/machine-0").symlink_to("3.6.26-ubuntu-amd64")
    return tmp_path


def names(host: Path, logs: bool = True) -> set[str]:
    found = gather(str(host / "juju"), str(host / "common"), str(host / "log") if logs else None, host / "staging")
    base = str(host).lstrip("/") + "/"
    return {
        name[len(base) :] for path, name in found.files if name.startswith(base) and (path.is_symlink() or not path.is_dir())
    }


def test_all_that_a_restore_needs_is_found_and_databases_are_not(host: Path) -> None:
    assert names(host) == {
        "juju/agents/machine-0/agent.conf",
        "juju/agents/unit-controller-0/agent.conf",
        "juju/server.pem",
        "juju/nonce.txt",
        "juju/tools/3.6.26-ubuntu-amd64/jujud",
        "juju/tools/machine-0",
        "juju/dqlite/metadata1",
        "common/shared-secret",
        "common/juju-db.config",
        "log/machine-0.log",
    }


def test_logs_are_a_choice(host: Path) -> None:
    assert "log/machine-0.log" not in names(host, logs=False)


@pytest.mark.parametrize("missing", ["juju/agents/machine-0/agent.conf", "juju/server.pem", "common/shared-secret"])
def test_what_must_be_there_is_named(host: Path, missing: str) -> None:
    (host / missing).unlink()
    with pytest.raises(JujuDrError, match=Path(missing).name.replace(".", r"\.")):
        names(host)


def test_sockets_and_pipes_are_passed_over_and_told(host: Path) -> None:
    os.mkfifo(host / "juju/pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(host / "juju/s"))
        found = gather(str(host / "juju"), str(host / "common"), None, host / "staging")
    assert len(found.left_out) == 2


def test_a_database_that_is_written_is_copied_as_one_state(tmp_path: Path) -> None:
    (tmp_path / "dqlite").mkdir()
    path, stop = tmp_path / "dqlite/controller", threading.Event()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE lease (a INTEGER, b INTEGER)")
        database.executemany("INSERT INTO lease VALUES (?, ?)", [(0, 0)] * 200)

    def write() -> None:
        number = 0
        writer = sqlite3.connect(path, timeout=30)
        while not stop.wait(0.15):
            number += 1
            with writer:
                writer.execute("UPDATE lease SET a = ?, b = ?", (number, number))
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        copy_dqlite(tmp_path / "dqlite", tmp_path / "copy")
    finally:
        stop.set()
        thread.join()
    with sqlite3.connect(tmp_path / "copy/controller") as copied:
        rows = set(copied.execute("SELECT a, b FROM lease"))
    assert len(rows) == 1
    assert all(a == b for a, b in rows)


def test_a_folder_that_never_holds_still_is_named(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_files, "DQLITE_ATTEMPTS", 3)
    counter = iter(range(1000))
    monkeypatch.setattr(host_files, "_signature", lambda _: [("x", next(counter), 0, 0)])
    with pytest.raises(JujuDrError, match="changed during each of 3 copies"):
        names(host)
