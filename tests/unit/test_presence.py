"""Evidence that agents are back, each kind alone."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr.presence import (
    STANDING_SECONDS,
    Expected,
    Log,
    Standing,
    by_connections,
    peers,
    started_at,
)

MODEL = "901f082c-b330-49e3-8f56-5fffb4a9c190"
LINE = "{} INFO juju.apiserver.connection server.go:1 agent login: {} for " + MODEL + "\n"


def agent(name: str, machine: str = "0") -> Expected:
    return Expected(f"{name}@{MODEL}", MODEL, machine, f"{MODEL}:{name}")


def test_a_log_is_read_on_through_half_lines_and_rotation(tmp_path: Path) -> None:
    path = tmp_path / "machine-0.log"
    log = Log(path, 0)
    assert log.read_on() == set()
    first = LINE.format("2026-11-25 01:00:00", "machine-0")
    path.write_text("noise\n" + first[:-20], encoding="utf-8")
    assert log.read_on() == set()
    path.write_text("noise\n" + first, encoding="utf-8")
    assert log.read_on() == {f"machine-0@{MODEL}"}
    path.write_text(LINE.format("2026-11-25 01:00:01", "unit-a-0"), encoding="utf-8")
    assert log.read_on() == {f"machine-0@{MODEL}", f"unit-a-0@{MODEL}"}


@pytest.mark.parametrize(("since", "counts"), [(1795568400.9, True), (1795568401.0, False), (float("inf"), False)])
def test_logins_before_the_start_do_not_count(tmp_path: Path, since: float, counts: bool) -> None:
    """The log tells whole seconds, so the second of the start counts."""
    path = tmp_path / "machine-0.log"
    path.write_text(LINE.format("2026-11-25 01:00:00", "machine-0"), encoding="utf-8")
    assert bool(Log(path, since).read_on()) is counts


def test_the_start_of_a_service_is_that_of_its_main_process() -> None:
    assert 0 <= time.time() - started_at("x", lambda _: (0, f"MainPID={os.getpid()}\n", "")) < 24 * 3600


@pytest.mark.parametrize("shown", ["MainPID=0\n", "", "MainPID=99999999\n"])
def test_a_service_that_does_not_run_has_no_start(shown: str) -> None:
    assert started_at("x", lambda _: (0, shown, "")) == float("inf")


def test_peers_are_those_connected_to_one_local_port() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue\n"
        "   0: 0100007F:42AE 0E00630A:9C40 01 00000000:00000000\n"
        "   1: 0100007F:42AE 0E00630A:9C41 06 00000000:00000000\n"
        "   2: 0100007F:90F9 0F00630A:9C42 01 00000000:00000000\n"
    )
    six = "   0: 00000000000000000000000001000000:42AE 0000000000000000FFFF00000F00630A:0001 01 0:0\n"
    assert peers([table, six], 17070) == [("10.99.0.14", 40000), ("10.99.0.15", 1)]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_kernel_s_tables_are_read_as_this_host_writes_them(address: str) -> None:
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        port = server.getsockname()[1]
        with socket.create_connection((address, port)) as client, server.accept()[0]:
            tables = [Path("/proc/net/tcp").read_text(), Path("/proc/net/tcp6").read_text()]
            assert (address, client.getsockname()[1]) in peers(tables, port)


def test_only_connections_that_last_count() -> None:
    standing = Standing()
    assert standing.addresses([("a", 1), ("a", 2)], 100) == {}
    assert standing.addresses([("a", 1), ("a", 3)], 100 + STANDING_SECONDS) == {"a": 1}
    assert standing.addresses([("a", 3)], 101 + STANDING_SECONDS) == {}


def test_one_connection_speaks_for_the_machine_as_many_as_agents_for_all() -> None:
    agents = [agent("machine-0"), agent("unit-a-0"), agent("machine-1", "1")]
    addresses = {(MODEL, "0"): ["10.0.0.1", "10.0.0.2"], (MODEL, "1"): ["10.0.0.9"]}
    assert by_connections(agents, addresses, {}) == {}
    assert by_connections(agents, addresses, {"10.0.0.2": 1}) == {f"machine-0@{MODEL}": "connection: 1 from 10.0.0.2"}
    assert set(by_connections(agents, addresses, {"10.0.0.1": 2})) == {f"machine-0@{MODEL}", f"unit-a-0@{MODEL}"}
    shared = {(MODEL, "0"): ["10.0.0.1"], (MODEL, "1"): ["10.0.0.1"]}
    assert by_connections(agents, shared, {"10.0.0.1": 5}) == {}
