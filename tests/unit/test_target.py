from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.juju_dr.target import Room, Target, obstacles, room_needed, subnet_of

ARCHIVE: dict[str, Any] = {
    "controller_uuid": "cu",
    "version": "3.6.26.1",
    "generation": "3.x",
    "addresses": ["10.99.0.15"],
    "has_agent_binary": True,
    "size": 10 * 2**20,
    "unpacked_bytes": 100 * 2**20,
    "root_bytes": 40 * 2**20,
}
INFO: dict[str, Any] = {
    "pymongo": "3.11.0",
    "juju_db_installed": True,
    "is_controller": True,
    "controller_uuid": "fresh",
    "version": "3.6.26.1",
    "has_dqlite": True,
}
INTERFACES = ["127.0.0.1/8", "10.99.0.21/24"]


GIB = 2**30
ROOMS = {"work": Room(1, 10 * GIB), "data": Room(1, 10 * GIB), "common": Room(2, 10 * GIB)}


def found(archive: dict[str, Any] | None = None, override: str = "", address: str = "10.99.0.21", **info: Any) -> list[str]:
    return obstacles({**ARCHIVE, **(archive or {})}, Target({**INFO, **info}, INTERFACES, [], ROOMS), address, override)


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
    ],
)
def test_each_obstacle_is_named_with_its_cure(archive: dict[str, Any], info: dict[str, Any], words: str) -> None:
    sentences = found(archive, **info)
    assert len(sentences) == 1
    assert words in sentences[0]


def test_all_obstacles_are_named_at_once() -> None:
    assert len(found(pymongo="", has_dqlite=False, version="3.6.25")) == 3


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


def test_room_is_needed_where_it_is_used() -> None:
    copied = {"data": Room(1, 0, copied=7 * 2**20)}
    assert room_needed(ARCHIVE, ROOMS) == {"work": 114 * 2**20, "data": 40 * 2**20, "common": (90 + 512) * 2**20}
    assert room_needed(ARCHIVE, copied) == {"data": 47 * 2**20}


@pytest.mark.parametrize(
    ("rooms", "words"),
    [
        (
            {"work": Room(1, 2**20), "data": Room(1, 2**20)},
            "only 1 MiB are free at /var/lib/juju-dr and /var/lib/juju, 154 MiB",
        ),
        ({"work": Room(1, GIB), "common": Room(2, 600 * 2**20)}, "only 600 MiB are free at /var/snap/juju-db/common, 602 MiB"),
        ({"work": Room(1, 114 * 2**20), "common": Room(2, 602 * 2**20)}, ""),
    ],
)
def test_what_one_disk_must_hold_is_added_up(rooms: dict[str, Room], words: str) -> None:
    sentences = obstacles(ARCHIVE, Target(INFO, INTERFACES, [], rooms), "10.99.0.21", "")
    assert len(sentences) == bool(words)
    assert all(words in sentence for sentence in sentences)


def test_a_mount_point_cannot_be_set_aside() -> None:
    target = Target(INFO, INTERFACES, [], ROOMS, ["/var/lib/juju"])
    assert obstacles(ARCHIVE, target, "10.99.0.21", "") == [
        "/var/lib/juju is a mount point and cannot be set aside: mount it elsewhere."
    ]


def test_what_an_interrupted_run_changed_is_no_obstacle() -> None:
    target = Target({**INFO, "controller_uuid": "cu", "has_dqlite": False}, INTERFACES, [], {"work": Room(1, 0)})
    assert obstacles(ARCHIVE, target, "10.99.0.21", "", resumed=True) == []
    assert len(obstacles(ARCHIVE, target, "10.99.0.21", "")) == 3
