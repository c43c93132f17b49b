from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr import repoint_remote
from ansible.module_utils.juju_dr.agent_conf import parse
from ansible.module_utils.juju_dr.repoint import Entry, Machine, Order, repoint, script, ssh, write_ledger

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "fixtures"
UUID = "e8ecd66d-8bbb-4161-85d8-ebcaabeef1fd"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The workload machine's /var/lib/juju."""
    with tarfile.open(FIXTURES / "juju-2.9.61-workload-files.tar.gz") as tar:
        tar.extractall(tmp_path, filter="fully_trusted")
    return tmp_path / "var/lib/juju"


@pytest.fixture
def order(data: Path) -> Order:
    ca = parse((data / "agents/machine-0/agent.conf").read_text(encoding="utf-8")).require("cacert")
    return Order(("192.0.2.1:17070",), UUID, ca, "20261124-101500", True)


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []

    def call(command: list[str]) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    return commands


def told(order: Order) -> dict[str, object]:
    return {**order.__dict__, "addresses": list(order.addresses)}


def addresses(data: Path) -> set[tuple[str, ...]]:
    return {tuple(parse(p.read_text(encoding="utf-8")).sequence("apiaddresses")) for p in data.glob("agents/*/agent.conf")}


def test_all_agents_of_a_machine_are_pointed_and_one_unit_is_restarted(
    data: Path, order: Order, restarted: list[list[str]]
) -> None:
    done = repoint_remote.main(told(order), str(data))
    assert sorted(done["changed"]) == ["machine-0", "unit-back-0", "unit-front-0"]
    assert addresses(data) == {("192.0.2.1:17070",)}
    assert [command[-1] for command in restarted] == ["jujud-machine-0"]
    for conf in data.glob("agents/*/agent.conf"):
        assert conf.stat().st_mode & 0o777 == 0o600
        assert "10.99.0.11" in conf.with_name("agent.conf.juju-dr-20261124-101500").read_text(encoding="utf-8")


def test_a_second_run_changes_nothing(data: Path, order: Order, restarted: list[list[str]]) -> None:
    repoint_remote.main(told(order), str(data))
    restarted.clear()
    assert repoint_remote.main(told(order), str(data))["changed"] == []
    assert restarted == []


def test_a_dry_run_tells_and_touches_nothing(data: Path, order: Order, restarted: list[list[str]]) -> None:
    before = addresses(data)
    done = repoint_remote.main({**told(order), "apply": False}, str(data))
    assert len(done["changed"]) == 3
    assert addresses(data) == before
    assert restarted == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"controller_uuid": "another"}, "another controller"),
        ({"ca_cert": "-----BEGIN CERTIFICATE-----"[:20] + "x"}, "another CA"),
    ],
)
def test_agents_of_another_controller_are_left_alone(
    data: Path, order: Order, restarted: list[list[str]], change: dict[str, str], words: str
) -> None:
    before = addresses(data)
    done = repoint_remote.main({**told(order), **change}, str(data))
    assert len(done["refused"]) == 3
    assert all(words in reason for reason in done["refused"])
    assert addresses(data) == before


def test_what_is_sent_runs_by_itself_and_prints_json(order: Order) -> None:
    """Fed to another interpreter, as ssh feeds it; there is no Juju on this machine, so nothing is found."""
    done = subprocess.run([sys.executable, "-I", "-"], input=script(order), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["changed"] == []


def test_nothing_secret_is_sent_or_stands_in_the_command(data: Path, order: Order) -> None:
    conf = parse((data / "agents/machine-0/agent.conf").read_text(encoding="utf-8"))
    assert conf.require("apipassword") not in script(order)
    assert ssh("192.0.2.9", "ubuntu", "/id", 5)[-5:] == ["ubuntu@192.0.2.9", "sudo", "-n", "python3", "-"]
    assert "PRIVATE" not in script(order)


MACHINES = [Machine("prod", str(n), (f"192.0.2.{n}",), (f"machine-{n}@m",)) for n in range(1, 9)]


def test_each_outcome_has_its_entry(order: Order) -> None:
    def run(command: list[str], text: str, timeout: float) -> tuple[int, str, str]:
        host = command[command.index("sudo") - 1].rpartition(".")[2]
        answers = {
            "1": (0, {"agents": ["machine-1@m"], "refused": [], "changed": ["machine-1"], "failed": []}, ""),
            "2": (0, {"agents": ["machine-2@m"], "refused": [], "changed": [], "failed": []}, ""),
            "3": (0, {"agents": [], "refused": ["machine-3@m: it trusts another CA"], "changed": [], "failed": []}, ""),
            "4": (0, {"agents": ["machine-4@m"], "refused": [], "changed": ["machine-4"], "failed": ["jujud-machine-4"]}, ""),
            "5": (1, {}, "sudo: a password is required"),
        }
        code, said, errors = answers.get(host, (255, {}, "ssh: No route to host"))
        return code, "motd\n" + json.dumps(said) + "\n", errors

    entries = {e.machine: e for e in repoint(MACHINES, order, "ubuntu", "/id", 4, 5, run)}
    assert [entries[n].outcome for n in "12345"] == ["done", "unchanged", "refused", "refused", "refused"]
    assert entries["4"].reason == "jujud-machine-4 did not restart"
    assert entries["5"].reason == "sudo: a password is required"
    assert (entries["6"].outcome, entries["6"].reason) == ("unreachable", "ssh: No route to host")
    assert entries["6"].agents == ["machine-6@m"]


def test_the_next_address_is_tried_and_no_more_than_allowed_at_a_time(order: Order) -> None:
    tried, now, most, lock = [], [0], [0], threading.Lock()

    def run(command: list[str], text: str, timeout: float) -> tuple[int, str, str]:
        with lock:
            tried.append(command[command.index("sudo") - 1])
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return 255, "", "refused"

    repoint([Machine("m", "0", ("192.0.2.1", "192.0.2.2"), ())], order, "ubuntu", "/id", 1, 5, run)
    assert tried == ["ubuntu@192.0.2.1", "ubuntu@192.0.2.2"]
    repoint(MACHINES, order, "ubuntu", "/id", 3, 5, run)
    assert most[0] == 3


def test_the_ledger_is_whole_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "below" / "ledger.json"
    write_ledger([Entry("prod", "0", "192.0.2.1", "done", "", ["machine-0@m"])], path)
    assert json.loads(path.read_text(encoding="utf-8"))[0]["outcome"] == "done"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["ledger.json"]
