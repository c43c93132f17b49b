from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.juju_dr.target import Target, obstacles, subnet_of

ARCHIVE: dict[str, Any] = {
    "controller_uuid": "cu",
    "version": "3.6.26.1",
    "generation": "3.x",
    "addresses": ["10.99.0.15"],
    "has_agent_binary": True,
    "unpacked_bytes": 100 * 2**20,
}
INFO: dict[str, Any] = {
    "pymongo": "3.11.0",
    "juju_db_installed": True,
    "is_controller": True,
    "controller_uuid": "fresh",
    "version": "3.6.26.1",
    "has_dqlite": True,
    "free": {"/var/lib/juju": 10 * 2**30},
}
INTERFACES = ["127.0.0.1/8", "10.99.0.21/24"]


def found(archive: dict[str, Any] | None = None, override: str = "", address: str = "10.99.0.21", **info: Any) -> list[str]:
    return obstacles({**ARCHIVE, **(archive or {})}, Target({**INFO, **info}, INTERFACES, []), address, override)


def test_a_ready_host_has_no_obstacle() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("archive", "info", "words"),
    [
        ({}, {"pymongo": ""}, "apt-get install python3-pymongo"),
        ({}, {"juju_db_installed": False}, "snap install juju-db"),
        ({}, {"version": "3.6.25"}, "bootstrap it with agent version 3.6.26.1"),
        ({}, {"has_dqlite": False}, "makes that folder only at bootstrap"),
        ({}, {"controller_uuid": "cu"}, "already is controller cu"),
        ({"has_agent_binary": False}, {}, "agent binary"),
        ({}, {"free": {"/var/lib/juju": 1}}, "762 MiB are needed"),
    ],
)
def test_each_obstacle_is_named_with_its_cure(archive: dict[str, Any], info: dict[str, Any], words: str) -> None:
    sentences = found(archive, **info)
    assert len(sentences) == 1
    assert words in sentences[0]


def test_all_obstacles_are_named_at_once() -> None:
    assert len(found(pymongo="", has_dqlite=False, free={"/": 1})) == 3


def test_a_foreign_address_is_refused() -> None:
    assert "juju_restore_address" in found(address="10.99.0.99")[0]


def test_the_same_address_needs_no_dqlite_of_its_own() -> None:
    assert found({"addresses": ["10.99.0.21"]}, has_dqlite=False) == []


def test_29_needs_no_dqlite() -> None:
    assert found({"generation": "2.9", "version": "2.9.61"}, has_dqlite=False, is_controller=False) == []


def test_spelling_the_uuid_out_restores_over_itself() -> None:
    assert found(controller_uuid="cu", override="cu") == []


def test_tools_of_the_host_serve_when_the_archive_has_none() -> None:
    target = Target(INFO, INTERFACES, ["3.6.26.1-ubuntu-amd64"])
    assert obstacles({**ARCHIVE, "has_agent_binary": False}, target, "10.99.0.21", "") == []


@pytest.mark.parametrize(("address", "subnet"), [("10.99.0.21", "10.99.0.0/24"), ("10.99.0.22", "")])
def test_subnet_of(address: str, subnet: str) -> None:
    assert subnet_of(address, INTERFACES) == subnet
