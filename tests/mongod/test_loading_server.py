"""juju-db run for loading, with a process in place of systemd's unit."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr.agent_conf import AgentConf
from ansible.module_utils.juju_dr.dump import dump
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.folder import Folder
from ansible.module_utils.juju_dr.load import load_into_juju_db
from ansible.module_utils.juju_dr.loading_server import ASIDE, CONFIG, SOCKET_FOLDER, loading_config, loading_server
from ansible.module_utils.juju_dr.mongo import access_from_agent_conf, connect
from ansible.module_utils.juju_dr.offline import at_rest
from ansible.module_utils.juju_dr.place_files import _CONFIG
from ansible.module_utils.juju_dr.replica_set import make_member
from conftest import free_port, unpack_fixture
from pymongo.errors import PyMongoError

from lab.mongod import Mongod

SERVICE = "snap.juju-db.daemon"


class JujuDb:
    """A controller host in a folder: /var/lib/juju, the snap's common folder, and the unit as a process."""

    def __init__(self, binary: Mongod, folder: Path, generation: str) -> None:
        files = unpack_fixture("controller-files", generation, folder)
        self.binary, self.process = binary, None
        self.data, self.common = files / "var/lib/juju", files / "var/snap/juju-db/common"
        (self.common / "logs").mkdir(exist_ok=True)
        port = free_port()
        self.conf_path = self.data / "agents/machine-0/agent.conf"
        text = self.conf_path.read_text(encoding="utf-8").replace("stateport: 37017", f"stateport: {port}")
        self.conf_path.write_text(text, encoding="utf-8")
        self.config = _CONFIG.format(common=self.common, port=port).replace("bind_ip_all = true", "bind_ip = 127.0.0.1")
        (self.common / CONFIG).write_text(self.config, encoding="utf-8")
        self.commands: list[str] = []
        self.guards: list[list[str]] = []

    process: subprocess.Popen[bytes] | None

    def run(self, command: list[str]) -> tuple[int, str, str]:
        if command[0] == "systemd-run" or command[-1].startswith("juju-dr-guard-"):
            self.guards.append(command)
            return 0, "", ""
        assert command[0] == "systemctl"
        self.commands.append(command[1])
        if command[1] == "start" and self.process is None:
            arguments = [str(self.binary.binary), "--config", str(self.common / CONFIG)]
            self.process = subprocess.Popen(arguments, env=self.binary.environment, stdout=subprocess.DEVNULL)
        elif command[1] == "stop" and self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
            self.process = None
        return 0, "", ""

    def as_found(self) -> bool:
        """The real configuration is in place, and nothing of ours is left."""
        same = (self.common / CONFIG).read_text(encoding="utf-8") == self.config
        return same and not (self.common / ASIDE).exists() and not (self.common / SOCKET_FOLDER).exists()


@pytest.fixture
def juju_db(mongod_binary: Mongod, generation: str, tmp_path: Path) -> Iterator[JujuDb]:
    # A short path: a socket's address has no room for more.
    folder = Path("/tmp") / f"juju-dr-{os.getpid()}-{tmp_path.name[-12:]}"
    folder.mkdir(mode=0o700)
    made = JujuDb(mongod_binary, folder, generation)
    yield made
    made.run(["systemctl", "stop"])
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_only_root_s_socket_answers_and_the_configuration_comes_back(juju_db: JujuDb) -> None:
    (juju_db.common / "db").mkdir(exist_ok=True)
    with loading_server(str(juju_db.common), SERVICE, juju_db.run) as client:
        client.juju.machines.insert_one({"_id": 1})
        assert (juju_db.common / SOCKET_FOLDER).stat().st_mode & 0o777 == 0o700
        assert juju_db.process is not None
        listening = subprocess.run(["ss", "-lntp"], capture_output=True, text=True, check=True).stdout
        assert f"pid={juju_db.process.pid}," not in listening
    assert juju_db.as_found()
    assert juju_db.process is None


def test_a_failure_inside_leaves_everything_as_found(juju_db: JujuDb) -> None:
    (juju_db.common / "db").mkdir(exist_ok=True)
    with pytest.raises(RuntimeError), loading_server(str(juju_db.common), SERVICE, juju_db.run):
        raise RuntimeError("half-way")
    assert juju_db.as_found()


def test_what_a_killed_run_left_is_healed(juju_db: JujuDb) -> None:
    (juju_db.common / "db").mkdir(exist_ok=True)
    (juju_db.common / CONFIG).replace(juju_db.common / ASIDE)
    (juju_db.common / CONFIG).write_text("for loading", encoding="utf-8")
    (juju_db.common / SOCKET_FOLDER).mkdir()
    with loading_server(str(juju_db.common), SERVICE, juju_db.run):
        pass
    assert juju_db.as_found()


def test_a_server_that_does_not_start_is_named_with_its_log(juju_db: JujuDb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.module_utils.juju_dr.loading_server.START_SECONDS", 3)
    (juju_db.common / "db").write_text("no folder", encoding="utf-8")
    with pytest.raises(JujuDrError, match="did not answer within 3 s for loading; its log ends"):
        with loading_server(str(juju_db.common), SERVICE, juju_db.run):
            pass
    assert juju_db.as_found()


def test_a_unit_that_systemd_has_given_up_is_not_waited_for(juju_db: JujuDb) -> None:
    def given_up(command: list[str]) -> tuple[int, str, str]:
        return 0, "failed\n" if command[1] == "show" else "", ""

    with pytest.raises(JujuDrError, match=r"^mongod ended for loading; its log ends: .*\. Look at: journalctl -u snap"):
        with loading_server(str(juju_db.common), SERVICE, given_up):
            pass
    assert juju_db.as_found()


def test_a_missing_configuration_is_named(juju_db: JujuDb) -> None:
    (juju_db.common / CONFIG).unlink()
    with pytest.raises(JujuDrError, match=r"juju-db\.config is missing"):
        with loading_server(str(juju_db.common), SERVICE, juju_db.run):
            pass


def test_a_whole_life_load_replicate_dump_offline(
    juju_db: JujuDb, fixture_archive: Path, controller_conf: AgentConf, tmp_path: Path
) -> None:
    """Juju's archive is loaded, its users log in over TLS, its member is primary, and it is dumped with juju-db stopped."""
    report = load_into_juju_db(str(fixture_archive), str(juju_db.conf_path), "0", str(juju_db.common), SERVICE, juju_db.run)
    assert report.documents > 1000
    with pytest.raises(JujuDrError, match="holds a database"):
        load_into_juju_db(str(fixture_archive), str(juju_db.conf_path), "0", str(juju_db.common), SERVICE, juju_db.run)
    juju_db.run(["systemctl", "start"])
    changed, member = make_member(str(juju_db.data), str(juju_db.common), "0", "127.0.0.1", apply=True)
    assert changed
    assert make_member(str(juju_db.data), str(juju_db.common), "0", "127.0.0.1", apply=True) == (False, member)
    with at_rest(str(juju_db.data), str(juju_db.common), SERVICE, juju_db.run) as client:
        dumped = dump(client, Folder(tmp_path / "dump"), "offline")
    assert [command[0] for command in juju_db.guards] == ["systemd-run", "systemctl"]
    assert {c.ns for c in dumped.collections} >= {"juju.machines", "admin.system.users"}
    assert juju_db.as_found()
    from ansible.module_utils.juju_dr.controller_host import machine_agent

    with connect(access_from_agent_conf(machine_agent(str(juju_db.data)).conf, str(juju_db.common))) as client:
        assert client.admin.command("isMaster")["ismaster"]


def test_what_was_loaded_survives_a_server_killed_while_it_stops(juju_db: JujuDb, fixture_archive: Path) -> None:
    """There is no journal while loading; systemd kills what takes too long to stop."""
    stop = juju_db.run

    def killing(command: list[str]) -> tuple[int, str, str]:
        if command[1] == "stop" and juju_db.process:
            juju_db.process.kill()
        return stop(command)

    # Replayed, it would change how many documents there are.
    (fixture_archive / "dump" / "oplog.bson").unlink()
    report = load_into_juju_db(str(fixture_archive), str(juju_db.conf_path), "0", str(juju_db.common), SERVICE, killing)
    with loading_server(str(juju_db.common), SERVICE, juju_db.run) as client:
        for one in report.collections:
            database, _, collection = one["ns"].partition(".")
            assert client[database][collection].count_documents({}) == one["documents"], one["ns"]
        assert client.admin.command({"usersInfo": "machine-0"})["users"]


def test_only_a_load_goes_without_a_journal() -> None:
    real = "journal = true\nstorageEngine = wiredTiger\nreplSet = juju\n"
    lines = loading_config(real, Path("/common/socket/load.sock"), journal=False).splitlines()
    assert "nojournal = true" in lines
    assert "journal = true" not in lines
    kept = loading_config(real, Path("/common/socket/load.sock")).splitlines()
    assert "journal = true" in kept
    assert "nojournal = true" not in kept
    assert "storageEngine = wiredTiger" in kept
    assert "replSet = juju" not in kept


def test_a_failed_offline_dump_starts_juju_db_again(juju_db: JujuDb, fixture_archive: Path, tmp_path: Path) -> None:
    load_into_juju_db(str(fixture_archive), str(juju_db.conf_path), "0", str(juju_db.common), SERVICE, juju_db.run)
    juju_db.run(["systemctl", "start"])
    make_member(str(juju_db.data), str(juju_db.common), "0", "127.0.0.1", apply=True)
    juju_db.commands.clear()
    with pytest.raises(RuntimeError, match="half-way"):
        with at_rest(str(juju_db.data), str(juju_db.common), SERVICE, juju_db.run):
            raise RuntimeError("half-way")
    assert [verb for verb in juju_db.commands if verb in ("start", "stop")] == ["stop", "start", "stop", "start"]
    assert juju_db.process is not None
    assert juju_db.as_found()


def test_without_a_guard_nothing_is_stopped(juju_db: JujuDb) -> None:
    def run(command: list[str]) -> tuple[int, str, str]:
        return (1, "", "Failed to connect to bus\n") if command[0] == "systemd-run" else juju_db.run(command)

    with pytest.raises(JujuDrError, match=r"No guard could be set up .*Failed to connect to bus"):
        with at_rest(str(juju_db.data), str(juju_db.common), SERVICE, run):
            pass
    assert juju_db.commands == []


def test_a_full_disk_is_named(juju_db: JujuDb, monkeypatch: pytest.MonkeyPatch) -> None:
    (juju_db.common / "db").mkdir(exist_ok=True)
    monkeypatch.setattr("ansible.module_utils.juju_dr.loading_server.FULL", 2**60)
    with pytest.raises(JujuDrError, match=r"is full \(\d+ KiB are free\), so juju-db ended: connection closed\. Make room"):
        with loading_server(str(juju_db.common), SERVICE, juju_db.run):
            raise PyMongoError("connection closed")
    assert juju_db.as_found()
