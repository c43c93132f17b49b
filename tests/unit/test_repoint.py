from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ansible.module_utils.juju_dr import repoint_remote
from ansible.module_utils.juju_dr.agent_conf import parse
from ansible.module_utils.juju_dr.repoint import (
    Entry,
    Machine,
    Order,
    Ways,
    feed,
    listening,
    machines_from,
    repoint,
    script,
    ssh,
    with_identity,
)

from lab.bootstrap import new_identity
from lab.farm import Farm, measure, timed
from lab.scale import rounds
from lab.tls import Listener, leaf

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "fixtures"
UUID = "e8ecd66d-8bbb-4161-85d8-ebcaabeef1fd"
MODEL = "901f082c-b330-49e3-8f56-5fffb4a9c190"
MEANT = {"tag": "machine-0", "model": MODEL}
NOWHERE = Ways("ubuntu", 22, (), 4, 5, knock=0)


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


@pytest.fixture(autouse=True)
def _no_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the controller can be reached is another question, asked by tests of its own."""
    monkeypatch.setattr(repoint_remote, "DIAL_SECONDS", 0.2)


def addresses(data: Path) -> set[tuple[str, ...]]:
    return {tuple(parse(p.read_text(encoding="utf-8")).sequence("apiaddresses")) for p in data.glob("agents/*/agent.conf")}


def test_all_agents_of_a_machine_are_pointed_and_one_unit_is_restarted(
    data: Path, order: Order, restarted: list[list[str]]
) -> None:
    done = repoint_remote.main(told(order), MEANT, str(data))
    assert sorted(done["changed"]) == ["machine-0", "unit-back-0", "unit-front-0"]
    assert addresses(data) == {("192.0.2.1:17070",)}
    assert [command[-1] for command in restarted] == ["jujud-machine-0"]
    for conf in data.glob("agents/*/agent.conf"):
        assert conf.stat().st_mode & 0o777 == 0o600
        assert "10.99.0.11" in conf.with_name("agent.conf.juju-dr-20261124-101500").read_text(encoding="utf-8")


def test_a_second_run_changes_nothing(data: Path, order: Order, restarted: list[list[str]]) -> None:
    repoint_remote.main(told(order), MEANT, str(data))
    restarted.clear()
    assert repoint_remote.main(told(order), MEANT, str(data))["changed"] == []
    assert restarted == []


def test_a_dry_run_tells_and_touches_nothing(data: Path, order: Order, restarted: list[list[str]]) -> None:
    before = addresses(data)
    done = repoint_remote.main({**told(order), "apply": False}, MEANT, str(data))
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
    done = repoint_remote.main({**told(order), **change}, MEANT, str(data))
    assert len(done["refused"]) == 3
    assert all(words in reason for reason in done["refused"])
    assert addresses(data) == before


def test_an_address_that_leads_to_another_machine_is_not_believed(data: Path, order: Order, restarted: list[list[str]]) -> None:
    before = addresses(data)
    done = repoint_remote.main(told(order), {"tag": "machine-7", "model": MODEL}, str(data))
    assert done["elsewhere"] == f"it has no agent machine-7@{MODEL} but machine-0@{MODEL}"
    assert (addresses(data), restarted) == (before, [])
    assert "but none" in repoint_remote.main(told(order), MEANT, str(data / "nothing"))["elsewhere"]


def test_a_controller_s_own_agent_is_left_alone(data: Path, order: Order, restarted: list[list[str]]) -> None:
    conf = data / "agents/machine-0/agent.conf"
    conf.write_text(conf.read_text(encoding="utf-8") + "controllerkey: |\n  -----BEGIN\n", encoding="utf-8")
    done = repoint_remote.main(told(order), MEANT, str(data))
    assert done["refused"] == [f"machine-0@{MODEL}: it is a controller machine's own"]
    assert "10.99.0.11:17070" in conf.read_text(encoding="utf-8")


def test_an_agent_without_addresses_is_refused_not_called_unchanged(
    data: Path, order: Order, restarted: list[list[str]]
) -> None:
    conf = data / "agents/unit-back-0/agent.conf"
    conf.write_text(conf.read_text(encoding="utf-8").replace("apiaddresses:", "stateaddresses:"), encoding="utf-8")
    assert repoint_remote.main(told(order), MEANT, str(data))["refused"] == [f"unit-back-0@{MODEL}: it has no apiaddresses"]


@pytest.mark.parametrize("text", ["apiaddresses:\n- a:1\n- b:2", "apiaddresses: []\n", "apiaddresses:\n  - a:1\nx: é\r\n"])
def test_only_the_addresses_change_whatever_the_file_ends_with(text: str) -> None:
    tail = text.partition("x:")[2]
    changed = repoint_remote.with_addresses("tag: machine-0\r\n" + text, ["n:1", "m:2"])
    assert changed == "tag: machine-0\r\napiaddresses:\n- n:1\n- m:2\n" + (f"x:{tail}" if tail else "")


@pytest.mark.parametrize("fatal", ["replace", "units_of"])
def test_a_run_that_is_ended_between_edit_and_restart_leaves_the_restart_to_the_next(
    data: Path, order: Order, restarted: list[list[str]], monkeypatch: pytest.MonkeyPatch, fatal: str
) -> None:
    real, calls = getattr(repoint_remote, fatal), []

    def ended(*arguments: object) -> None:
        calls.append(arguments)
        if fatal == "replace" and len(calls) == 1:
            real(*arguments)
            return
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(repoint_remote, fatal, ended)
        with pytest.raises(KeyboardInterrupt):
            repoint_remote.main(told(order), MEANT, str(data))
    assert restarted == []
    done = repoint_remote.main(told(order), MEANT, str(data))
    assert [command[-1] for command in restarted] == ["jujud-machine-0"]
    assert set(done["changed"]) == {"machine-0", "unit-back-0", "unit-front-0"}
    assert addresses(data) == {("192.0.2.1:17070",)}
    restarted.clear()
    assert repoint_remote.main(told(order), MEANT, str(data))["changed"] == []
    assert restarted == []


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(rounds(4, 100)))
def test_killed_anywhere_each_file_is_old_or_new_and_the_next_run_ends_it(data: Path, order: Order, seed: int) -> None:
    """The machine's side, killed at a random moment as by a power cut; systemctl is one that only notes."""
    log = data / "restarted"
    bin_ = data / "bin"
    bin_.mkdir()
    (bin_ / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {log}\n', encoding="utf-8")
    (bin_ / "systemctl").chmod(0o755)
    text = (
        script(order, MACHINE)
        .replace('root="/var/lib/juju"', f"root={str(data)!r}")
        .replace("DIAL_SECONDS = 3", "DIAL_SECONDS = 0.1")
    )
    environment = {"PATH": f"{bin_}:/usr/bin:/bin"}
    old = {path: path.read_text(encoding="utf-8") for path in data.glob("agents/*/agent.conf")}
    with subprocess.Popen(
        [sys.executable, "-IS", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment
    ) as killed:
        assert killed.stdin
        killed.stdin.write(text.encode())
        killed.stdin.close()
        time.sleep(random.Random(seed).uniform(0.01, 0.08))
        killed.kill()
    for path, before in old.items():
        now = path.read_text(encoding="utf-8")
        assert now in (before, repoint_remote.with_addresses(before, order.addresses))
    done = subprocess.run([sys.executable, "-IS", "-"], input=text, capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout)["failed"] == []
    assert addresses(data) == {("192.0.2.1:17070",)}
    assert log.read_text(encoding="utf-8").splitlines()[-1] == "restart --no-block jujud-machine-0"
    assert list(data.glob("agents/*/*.juju-dr-restart")) == []


MACHINE = Machine("prod", MODEL, "0", ("192.0.2.9",), (f"machine-0@{MODEL}",))


def test_what_is_sent_runs_by_itself_and_prints_json(order: Order) -> None:
    """Fed to another interpreter, as ssh feeds it; there is no Juju on this machine, so nothing is found."""
    done = subprocess.run(
        [sys.executable, "-IS", "-"], input=script(order, MACHINE), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["elsewhere"] == f"it has no agent machine-0@{MODEL} but none"


def test_nothing_secret_is_sent_or_stands_in_the_command(data: Path, order: Order) -> None:
    conf = parse((data / "agents/machine-0/agent.conf").read_text(encoding="utf-8"))
    assert conf.require("apipassword") not in script(order, MACHINE)
    command = ssh("192.0.2.9", Ways(options=with_identity("/id")))
    assert command[-6:] == ["ubuntu@192.0.2.9", "sudo", "-n", "python3", "-IS", "-"]
    assert command[command.index("-i") + 1] == "/id"
    assert "PRIVATE" not in script(order, MACHINE)


def test_a_container_is_reached_through_its_host_when_its_address_is_not_known_elsewhere(order: Order) -> None:
    host = Machine("prod", MODEL, "0", ("127.0.0.1",), ())
    inner = Machine("prod", MODEL, "0/lxd/1", ("192.0.2.77",), (), "0")
    commands: list[list[str]] = []

    def run(command: list[str], text: str, timeout: float) -> tuple[int, str, str]:
        commands.append(command)
        return 255, "", "closed"

    with socket.create_server(("127.0.0.1", 0)) as sshd:
        ways = Ways(port=sshd.getsockname()[1], options=with_identity("/a b"), timeout=3, knock=0.5)
        repoint([host, inner], order, ways, run)
    (proxied,) = [part for command in commands for part in command if part.startswith("ProxyCommand=")]
    assert proxied.endswith("-W '[%h]:%p' ubuntu@127.0.0.1")
    assert "-i '/a b'" in proxied
    assert ["ubuntu@192.0.2.77" in command for command in commands].count(True) == 1


def test_machines_that_do_not_listen_cost_no_ssh(order: Order) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ways = Ways(port=closed.getsockname()[1])
        entries = repoint(
            [Machine("m", MODEL, "0", ("127.0.0.1",), ()), Machine("m", MODEL, "1", (), ())],
            order,
            ways,
            lambda *_: pytest.fail("ssh was run"),
        )
        assert listening([], ways.port, 1) == set()
    assert [e.outcome for e in entries] == ["unreachable", "unreachable"]
    assert [e.reason for e in entries] == [
        f"nothing answers at port {ways.port}",
        "the database knows no address of it",
    ]


MACHINES = [Machine("prod", MODEL, str(n), (f"192.0.2.{n}",), (f"machine-{n}@m",)) for n in range(1, 10)]
FINE = {"agents": ["machine@m"], "refused": [], "changed": [], "failed": [], "elsewhere": "", "controller": ""}


def test_each_outcome_has_its_entry(order: Order) -> None:
    def run(command: list[str], text: str, timeout: float) -> tuple[int, str, str]:
        host = command[command.index("sudo") - 1].rpartition(".")[2]
        fine = {**FINE, "clock": time.time()}
        answers = {
            "1": (0, {**fine, "changed": ["machine-1"]}, ""),
            "2": (0, fine, ""),
            "3": (0, {**fine, "agents": [], "refused": ["machine-3@m: it trusts another CA"]}, ""),
            "4": (0, {**fine, "changed": ["machine-4"], "failed": ["jujud-machine-4"]}, ""),
            "5": (1, {}, "sudo: a password is required"),
            "6": (255, {}, "ubuntu@192.0.2.6: Permission denied (publickey)."),
            "7": (0, {**fine, "elsewhere": "it has no agent machine-7@m but machine-1@m"}, ""),
            "8": (
                0,
                {**fine, "clock": time.time() - 5 * 86400, "controller": "192.0.2.1:17070: certificate is not yet valid"},
                "",
            ),
        }
        code, said, errors = answers.get(host, (255, {}, "ssh: No route to host"))
        return code, "motd\n" + json.dumps(said) + "\n", errors

    noted: list[Entry] = []
    entries = {e.machine: e for e in repoint(MACHINES, order, NOWHERE, run, noted.append)}
    outcomes = ["done", "unchanged", "refused", "refused", "refused", "refused", "unreachable", "unchanged", "unreachable"]
    assert [entries[n].outcome for n in "123456789"] == outcomes
    assert entries["4"].reason == "jujud-machine-4 did not restart"
    assert entries["5"].reason == "sudo: a password is required"
    assert "Permission denied" in entries["6"].reason
    assert entries["7"].reason == "192.0.2.7 is another machine: it has no agent machine-7@m but machine-1@m"
    assert "its clock is 5.0 days behind" in entries["8"].warning
    assert "not yet valid" in entries["8"].warning
    assert entries["9"].reason == "ssh: No route to host"
    assert entries["9"].agents == ["machine-9@m"]
    assert sorted(noted, key=lambda e: e.machine) == list(entries.values())


def test_an_answer_that_is_cut_off_is_no_success(order: Order) -> None:
    for output in ("", '{"agents": ['):
        (entry,) = repoint(MACHINES[:1], order, NOWHERE, lambda *_, said=output: (0, said, ""))
        assert (entry.outcome, entry.reason) == ("refused", "its answer was cut off")


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

    repoint([Machine("m", MODEL, "0", ("192.0.2.1", "192.0.2.2"), ())], order, NOWHERE, run)
    assert tried == ["ubuntu@192.0.2.1", "ubuntu@192.0.2.2"]
    repoint(MACHINES, order, Ways(parallel=3, knock=0), run)
    assert most[0] == 3


def test_a_machine_that_hangs_is_given_up() -> None:
    code, _, errors = feed(["sleep", "20"], "", 0.2)
    assert (code, errors) == (255, "no answer within 0 s")
    assert feed(["cat"], "x", 5) == (0, "x", "")


@pytest.mark.parametrize(("begins", "ends", "words"), [(-9, 9, ""), (-9, -3, "expired"), (3, 9, "not yet valid")])
def test_why_an_agent_cannot_reach_the_controller_is_told_by_the_machine(
    order: Order, tmp_path: Path, begins: int, ends: int, words: str
) -> None:
    """A machine whose clock is off by days sees a certificate that is not valid, and so does its agent."""
    identity = new_identity()
    pem = tmp_path / "dated.pem"
    pem.write_text(leaf(identity, begins, ends), encoding="utf-8")
    port = Listener(pem).port
    seen = repoint_remote.why_not({"ca_cert": identity.ca_cert, "addresses": [f"127.0.0.1:{port}"]})
    assert words in seen
    assert bool(seen) is bool(words)


def test_machines_are_listed_without_controllers_and_with_their_hosts() -> None:
    def collection(*documents: dict[str, Any]) -> Mock:
        return Mock(find=lambda *_: documents)

    address = {"addresses": [{"value": "10.0.0.1"}], "life": 0, "tools": {}}
    database = Mock(
        models=collection({"_id": "M", "name": "controller"}, {"_id": "W", "name": "prod"}),
        units=collection({"name": "a/0", "model-uuid": "W", "machineid": "0"}),
        machines=collection(
            {**address, "model-uuid": "M", "machineid": "0", "jobs": [2, 1]},
            {**address, "model-uuid": "M", "machineid": "1", "jobs": [1]},
            {**address, "model-uuid": "M", "machineid": "2", "jobs": [1]},
            {**address, "model-uuid": "W", "machineid": "0/lxd/1", "jobs": [1]},
            {**address, "model-uuid": "W", "machineid": "0", "jobs": [1]},
        ),
    )
    found = machines_from(database, "M", ["1"])
    assert [(one.model, one.machine, one.parent) for one in found] == [
        ("controller", "2", ""),
        ("prod", "0", ""),
        ("prod", "0/lxd/1", "0"),
    ]
    assert found[1].agents == ("machine-0@W", "unit-a-0@W")
    assert found[2].tag == "machine-0-lxd-1"


@pytest.mark.parametrize("count", [10, pytest.param(rounds(60, 1000), marks=pytest.mark.torture)])
def test_many_machines_are_pointed_and_the_cost_of_one_stays_what_it_is(count: int) -> None:
    """Processor time, not the clock: other tests run beside. 1,000 machines in 120 s on two cores are 240 ms of it for each."""
    figures = measure(count)
    print(figures)
    assert figures.processor / count < 0.24
    assert figures.own / count < 0.04
    assert figures.memory < 400 * 2**20


def test_machines_that_are_gone_or_hung_up_on_do_not_hold_the_others_up(tmp_path: Path) -> None:
    farm = Farm(tmp_path / "farm", 6)
    with farm.simulated() as ways:
        shutil.rmtree(tmp_path / "farm/machines" / farm.machines[0].addresses[0])
        entries = timed(farm, ways)[1]
    assert [one.outcome for one in entries] == ["unreachable", *["done"] * 5]
    assert entries[0].reason == "ssh: connect to host port 22: No route to host"
    assert (farm.pointed(), farm.restarts()) == (15, 5)
