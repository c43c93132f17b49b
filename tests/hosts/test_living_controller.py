"""On hosts whose controller lives: re-pointing when machines are away, the control process is killed, the log is quiet; and a
restore that finds out half-way that the old controller machine is not dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from lab.hosts import KEY, inside
from lab.podman import ROOT, podman
from lab.scale import rounds

ARCHIVE = ROOT / "tests" / "data" / "fixtures" / "juju-2.9.61-single.tar.gz"
CONTROLLER, NEW = "c0", "10.99.0.11:17070"
LEDGER, JOURNAL = "/var/lib/juju-dr/repoint-ledger.json", "/var/lib/juju-dr/repoint-journal.jsonl"
HOST = ("-e", f"repoint_host={CONTROLLER}", "-e", "prove_deadline=60")
# A running agent would write the addresses that it has learnt into the file again.
AWAY = (
    "units=$(systemctl list-units --plain --no-legend 'jujud-*' | cut -d' ' -f1); systemctl stop $units; "
    "sed -i 's/^- 10[.]99[.]0[.]11:17070$/- 10.99.0.99:17070/' /var/lib/juju/agents/*/agent.conf; systemctl start $units"
)
# Nothing that was seen before counts for a machine agent that has just begun.
ANEW = "systemctl restart jujud-machine-0"
FORGET = """
import glob, sys
sys.path.insert(0, "/usr/local/lib/juju-lab")
from ansible.module_utils.juju_dr.agent_conf import parse
from ansible.module_utils.juju_dr.mongo import access_from_agent_conf, connect
conf = parse(open("/var/lib/juju/agents/machine-0/agent.conf").read())
with connect(access_from_agent_conf(conf, "/var/snap/juju-db/common")) as client:
    workloads = {"model-uuid": {"$ne": conf.require("model")[len("model-"):]}}
    client.juju.statuses.update_many(workloads, {"$set": {"updated": 0}})
    client.juju.machines.update_many(workloads, {"$unset": {"agent-started-at": 1}})
"""
Playbook = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module", autouse=True)
def _living(lab_command: Callable[..., None]) -> None:
    lab_command("up", "single-2.9", "--documents", "200")


def sh(host: str, script: str) -> str:
    return inside(host, ["sh", "-c", script])


def ended(process: subprocess.Popen[str]) -> str:
    """What a playbook that ends well has printed."""
    output = process.communicate()[0]
    assert process.returncode == 0, output[-3000:]
    return output


def ledger() -> dict[str, dict[str, Any]]:
    return {f"{one['model']} {one['machine']}": one for one in json.loads(sh(CONTROLLER, f"cat {LEDGER}"))["machines"]}


def addresses(host: str) -> set[str]:
    return set(sh(host, "cat /var/lib/juju/agents/*/agent.conf | grep ':17070$'").replace("- ", "").split())


def test_the_unreachable_is_kept_in_the_ledger_and_the_next_run_does_only_the_rest(playbook: Playbook) -> None:
    sh("m2", "systemctl stop ssh.socket ssh; pkill sshd || true")
    for host in ("m1", "w0"):
        sh(host, AWAY)
    sh(CONTROLLER, ANEW)
    output = ended(playbook("repoint", *HOST))
    first = ledger()
    assert {name: one["outcome"] for name, one in first.items()} == {
        "controller 1": "done",
        "controller 2": "unreachable",
        "prod 0": "done",
    }
    assert first["controller 2"]["reason"] == "nothing answers at port 22"
    assert "unreachable" in output
    assert addresses("w0") | addresses("m1") == {NEW}
    for name in ("controller 1", "prod 0"):
        assert set(first[name]["seen"]) == set(first[name]["agents"])
    sh("m2", "systemctl start ssh")
    # This time from the control machine, with its own ssh.
    lax = ["-i", str(KEY), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    control = {"repoint_agents_from": "control", "repoint_agents_ssh_args": lax}
    ended(playbook("repoint", *HOST, "-e", json.dumps(control)))
    second = ledger()
    assert second["controller 2"]["outcome"] == "unchanged"
    assert set(second["controller 2"]["seen"]) == set(second["controller 2"]["agents"])
    # Told again, they would be "unchanged".
    assert [second[name] for name in ("controller 1", "prod 0")] == [first[name] for name in ("controller 1", "prod 0")]
    assert sh(CONTROLLER, f"cat {LEDGER.replace('.json', '.txt')}").startswith("MODEL")


def test_a_killed_control_process_loses_nothing(playbook: Playbook) -> None:
    """One machine hangs; the others are done, and noted, when the control process is killed."""
    sh("m2", "printf '#!/bin/sh\\nsleep 100\\n' > /usr/local/bin/python3 && chmod 755 /usr/local/bin/python3")
    for host in ("m1", "w0"):
        sh(host, AWAY)
    sh(CONTROLLER, ANEW)
    killed = playbook("repoint", *HOST, "-e", "repoint_agents_force=true", "-e", "repoint_agents_timeout=90")
    deadline = time.monotonic() + 60
    while len(sh(CONTROLLER, f"cat {JOURNAL} 2>/dev/null || true").splitlines()) < 2:
        assert time.monotonic() < deadline, "no two machines were noted"
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    sh("m2", "rm /usr/local/bin/python3")
    ended(playbook("repoint", *HOST))
    entries = ledger()
    assert [entries[name]["outcome"] for name in ("controller 1", "prod 0")] == ["done", "done"]
    assert entries["controller 2"]["outcome"] == "unchanged"
    assert all(set(one["seen"]) == set(one["agents"]) for one in entries.values())
    assert addresses("w0") | addresses("m1") == {NEW}
    assert sh(CONTROLLER, f"ls {JOURNAL} 2>/dev/null || true") == ""


def test_a_quiet_log_hides_no_agent(playbook: Playbook) -> None:
    """Of the workload's agents neither log nor documents tell here: their connections do."""
    sh(CONTROLLER, ": > /var/log/juju/machine-0.log")
    inside(CONTROLLER, ["python3", "-"], FORGET)
    ended(playbook("repoint", *HOST, "-e", "repoint_agents_force=true"))
    entries = ledger()
    assert {one["outcome"] for one in entries.values()} == {"unchanged"}
    evidence = {name: {str(seen).partition(":")[0] for seen in one["seen"].values()} for name, one in entries.items()}
    assert evidence == {"controller 1": {"documents"}, "controller 2": {"documents"}, "prod 0": {"connection"}}
    assert all(set(one["seen"]) == set(one["agents"]) for one in entries.values())


def test_a_machine_that_comes_back_while_the_database_is_loaded_is_seen_before_the_start(
    lab_command: Callable[..., None], playbook: Playbook
) -> None:
    """A hung machine accepts connections and says nothing: reported. Once it shows its certificate, nothing is started."""
    lab_command("spare", "n0", "--bootstrapped", "2.9")
    podman("pause", "juju-dr-c0")
    restore = playbook("restore", "-e", f"archive={ARCHIVE}")
    assert restore.stdout
    output = ""
    try:
        for line in restore.stdout:
            output += line
            if "Load the database" in line:
                podman("unpause", "juju-dr-c0")
    finally:
        podman("unpause", "juju-dr-c0", check=False)
    assert restore.wait() != 0, output[-3000:]
    flat = " ".join(output.split())
    assert "10.99.0.11 port 17070 answers (seen from n0), but is not this controller: something accepts connections" in flat, (
        flat[-3000:]
    )
    assert "An old controller machine still answers at 10.99.0.11 port 17070 (seen from localhost" in flat
    # Everything is as it was: the fresh controller that was there runs again.
    conf = sh("n0", "cat /var/lib/juju/agents/machine-0/agent.conf")
    assert "controller-e8ecd66d-8bbb-4161-85d8-ebcaabeef1fd" not in conf
    assert "jujud-machine-0 runs again" in flat, flat[-3000:]


@pytest.mark.torture
def test_many_machines_by_openssh_itself() -> None:
    """Client, server, sudo and Python of all of them on this machine: far more than our own side of it."""
    count = rounds(20, 1000)
    figures = json.loads(inside("w0", ["python3", "-m", "lab.farm", "--real", str(count)]))
    print(figures)
    assert figures["machines"] == count
    assert figures["own"] / count < 0.04
