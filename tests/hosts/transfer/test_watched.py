"""A watched module: seen while it runs, its result its own, alive over a cut line, dead when nobody asks."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lab import faults
from lab.hosts import inside
from tests.hosts.transfer.playing import Ansible

MARK = "/root/slow-module"


def slow(seconds: float, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "slow", "slow_module": {"seconds": seconds, "mark": MARK, **more}}]


def mark() -> str:
    return inside("n0", ["sh", "-c", f"cat {MARK} 2>/dev/null || true"])


def until_mark(text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in mark():
        assert time.monotonic() < deadline, mark()
        time.sleep(0.05)


def enough() -> None:
    inside("n0", ["touch", f"{MARK}.enough"])


def files_left() -> str:
    return inside("n0", ["sh", "-c", "ls -A /run/juju-dr /root/.ansible_async 2>/dev/null | grep -v : || true"]).strip()


@pytest.fixture(autouse=True)
def no_mark(spare: str) -> None:
    inside(spare, ["rm", "-f", MARK, f"{MARK}.enough"])


def test_it_is_seen_each_second_and_returns_its_own_result(ansible: Ansible) -> None:
    run = ansible.start("n0", slow(60), juju_dr_progress="always")

    def lines() -> list[str]:
        return [line for line in run.output.splitlines() if line.startswith("[n0] slow_module: ")]

    deadline = time.monotonic() + 50
    while len(lines()) < 3:
        assert time.monotonic() < deadline, run.output
        time.sleep(0.1)
    enough()
    assert run.wait().code == 0, run.output
    assert "of 600.0 MiB" in lines()[0]
    assert "of 60,000 documents" in lines()[0]
    assert lines()[1].endswith(" left")
    assert "done in 0:" in lines()[-1]
    result = run.results["slow"]
    assert (result["changed"], result["started"], result["finished"]) == (True, "10:00", "10:05")
    assert result["watched"].startswith("/run/juju-dr/")
    assert not {"ansible_job_id", "results_file"} & set(result)
    assert files_left() == ""


def test_without_a_terminal_nothing_is_shown(ansible: Ansible) -> None:
    run = ansible.run("n0", slow(1.5))
    assert run.code == 0
    assert "slow_module:" not in run.output


def test_check_mode_runs_it_plainly(ansible: Ansible) -> None:
    result = ansible.run("n0", [{**slow(60)[0], "check_mode": True}]).results["slow"]
    assert (result["changed"], result["watched"]) == (True, "")
    assert mark() == ""


def test_it_outlives_a_cut_line(ansible: Ansible) -> None:
    run = ansible.start("n0", slow(60), juju_dr_progress="always")
    until_mark("begun")
    faults.unplug("n0")
    deadline = time.monotonic() + 30
    while "cannot be reached" not in run.output:
        assert time.monotonic() < deadline, run.output
        time.sleep(0.1)
    faults.plug("n0")
    enough()
    assert run.wait().code == 0, run.output
    assert "the host cannot be reached; the job goes on there, asking again" in run.output
    assert mark() == "done"
    assert files_left() == ""


def test_a_host_that_stays_away_is_a_failure_and_its_job_ends_by_itself(ansible: Ansible) -> None:
    run = ansible.start("n0", slow(60, patience=6), juju_dr_reconnect_seconds=2)
    until_mark("begun")
    faults.unplug("n0")
    run.wait()
    faults.plug("n0")
    assert run.results["slow"]["msg"].startswith("slow_module runs on n0, which cannot be reached for 0:")
    until_mark("Nobody has asked for this run for 6 s")
    # The job's result stays: nobody came for it.
    assert inside("n0", ["sh", "-c", "ls -A /run/juju-dr"]).strip() == ""
    inside("n0", ["sh", "-c", "rm -f /root/.ansible_async/*"])


def test_a_killed_module_is_named(ansible: Ansible) -> None:
    run = ansible.start("n0", slow(60))
    until_mark("begun")
    inside("n0", ["sh", "-c", "kill -9 $(pgrep -f '[A]nsiballZ_slow_module' | tail -n 1)"])
    run.wait()
    assert run.results["slow"]["msg"] == "slow_module ended on n0 without a result: it was killed."
    assert files_left() == ""


def test_a_failure_of_the_module_is_its_own(ansible: Ansible) -> None:
    run = ansible.start("n0", slow(60))
    until_mark("begun")
    inside("n0", ["sh", "-c", "rm /run/juju-dr/*.asked"])
    result = run.wait().results["slow"]
    assert result["msg"].endswith("is gone: this run was ended from outside. Run the playbook again.")
    assert files_left() == ""


def test_the_longest_it_may_take(ansible: Ansible) -> None:
    run = ansible.run("n0", slow(60), juju_dr_job_seconds=2)
    assert "Timeout exceeded" in run.results["slow"]["msg"]
