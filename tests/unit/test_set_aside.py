from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr import set_aside
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.set_aside import aside, back

STAMP = "20261124-101500"
SERVICE = "snap.juju-db.daemon"


class Host:
    """A host in a folder, with nothing running unless it is said."""

    def __init__(self, base: Path) -> None:
        self.data, self.common, self.units, self.journals = (base / n for n in ("lib/juju", "common", "systemd", "journals"))
        self.homes = base / "home"
        self.running: set[str] = set()
        for folder in (
            self.data / "agents/machine-0",
            self.data / "dqlite",
            self.data / "tools",
            self.common / "db",
            self.units,
        ):
            folder.mkdir(parents=True)
        (self.data / "agents/machine-0/agent.conf").write_text("old", encoding="utf-8")
        (self.data / "dqlite/controller").write_text("own leases", encoding="utf-8")
        (self.common / "db/collection.wt").write_text("old data", encoding="utf-8")
        (self.common / "server.pem").write_text("old key", encoding="utf-8")
        (self.units / "jujud-machine-0.service").write_text("old unit", encoding="utf-8")
        (self.units / "other.service").write_text("not ours", encoding="utf-8")
        (self.homes / "ubuntu/.ssh").mkdir(parents=True)
        (self.homes / "ubuntu/.ssh/authorized_keys").write_text("the operator's\n", encoding="utf-8")
        self.base = base

    def run(self, command: list[str]) -> tuple[int, str, str]:
        if command[:2] == ["systemctl", "is-active"]:
            return (0, "active", "") if command[2] in self.running else (3, "inactive", "")
        return 0, "", ""

    def places(self) -> set_aside.Host:
        return set_aside.Host(self.data, self.common, SERVICE, self.run, self.journals, self.units, self.homes)

    def aside(self) -> list[dict[str, str]]:
        moved: list[dict[str, str]] = aside(STAMP, self.places())["moved"]
        return moved

    def back(self) -> list[dict[str, str]]:
        moved: list[dict[str, str]] = back(STAMP, self.places())["moved"]
        return moved

    def content(self) -> dict[str, str]:
        """Files that are in use, by name."""
        found = {}
        for path in self.base.rglob("*"):
            name = str(path.relative_to(self.base))
            if path.is_file() and ".failed-" not in name and ".aside-" not in name and "journals" not in name:
                found[name] = path.read_text(encoding="utf-8")
        return found


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_everything_is_kept_and_the_host_s_own_leases_stay(host: Host) -> None:
    host.aside()
    assert host.content() == {
        "lib/juju/dqlite/controller": "own leases",
        "systemd/other.service": "not ours",
        "home/ubuntu/.ssh/authorized_keys": "the operator's\n",
    }
    assert (host.base / f"lib/juju.aside-{STAMP}/agents/machine-0/agent.conf").read_text(encoding="utf-8") == "old"
    assert (host.base / f"common/db.aside-{STAMP}/collection.wt").read_text(encoding="utf-8") == "old data"


def test_back_undoes_it_and_keeps_what_was_placed(host: Host) -> None:
    before = host.content()
    host.aside()
    (host.common / "db").mkdir()
    (host.common / "db/half.wt").write_text("half a load", encoding="utf-8")
    (host.units / "jujud-machine-3.service").write_text("placed", encoding="utf-8")
    with (host.homes / "ubuntu/.ssh/authorized_keys").open("a", encoding="utf-8") as keys:
        keys.write("the lost controller's\n")
    host.back()
    assert host.content() == before
    assert (host.common / f"db.failed-{STAMP}/half.wt").read_text(encoding="utf-8") == "half a load"
    assert (host.units / f"jujud-machine-3.service.failed-{STAMP}").exists()


def test_back_is_done_once(host: Host) -> None:
    before = host.content()
    host.aside()
    assert host.back() != []
    assert host.back() == []
    assert host.content() == before


def test_back_without_aside_touches_nothing(host: Host) -> None:
    before = host.content()
    assert host.back() == []
    assert host.content() == before


@pytest.mark.parametrize("moved", range(1, 4))
def test_an_interrupted_move_is_undone_too(host: Host, monkeypatch: pytest.MonkeyPatch, moved: int) -> None:
    before, count, real = host.content(), 0, os.rename

    def breaking(source: str, target: str) -> None:
        nonlocal count
        count += 1
        if count > moved:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "rename", breaking)
    with pytest.raises(KeyboardInterrupt):
        host.aside()
    monkeypatch.setattr(os, "rename", real)
    host.back()
    assert host.content() == before


def test_nothing_is_moved_under_a_running_service(host: Host) -> None:
    before = host.content()
    host.running = {SERVICE}
    with pytest.raises(JujuDrError, match=r"snap\.juju-db\.daemon still runs"):
        host.aside()
    assert host.content() == before


def test_a_bare_host_has_nothing_to_move(tmp_path: Path) -> None:
    host = Host(tmp_path / "x")
    bare = tmp_path / "bare"
    (bare / "systemd").mkdir(parents=True)
    places = set_aside.Host(bare / "lib/juju", bare / "common", SERVICE, host.run, bare / "journals", bare / "systemd", bare)
    done = aside(STAMP, places)
    assert done == {"moved": [], "bytes": 0}
    (bare / "lib/juju/agents").mkdir()
    back(STAMP, places)
    assert not (bare / "lib/juju").exists()
    assert (bare / f"lib/juju.failed-{STAMP}/agents").exists()
