from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr import journal as journals
from ansible.module_utils.juju_dr import set_aside
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.journal import Archive, Journal, begin
from ansible.module_utils.juju_dr.set_aside import aside, back, delete, kept, services

STAMP = "20261124-101500"
SERVICE = "snap.juju-db.daemon"
KEYS = "ubuntu/.ssh/authorized_keys"


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
        (self.homes / KEYS).write_text("the operator's\n", encoding="utf-8")
        (self.homes / "other").mkdir()
        wants = self.units / "multi-user.target.wants"
        wants.mkdir()
        (wants / "jujud-machine-0.service").symlink_to("../jujud-machine-0.service")
        (wants / f"{SERVICE}.service").symlink_to("/snap/juju-db.service")
        self.base = base
        # Of the unpacked archive.
        self.root = base.with_name(f"{base.name}.root")
        for name in ("ubuntu", "other"):
            keys = self.root / "home" / name / ".ssh/authorized_keys"
            keys.parent.mkdir(parents=True)
            keys.write_text("the lost controller's\n", encoding="utf-8")

    def run(self, command: list[str]) -> tuple[int, str, str]:
        if command[:2] == ["systemctl", "is-active"]:
            return (0, "active", "") if command[2] in self.running else (3, "inactive", "")
        return 0, "", ""

    def places(self) -> set_aside.Host:
        return set_aside.Host(self.data, self.common, SERVICE, self.run, self.journals, self.units, self.homes)

    @property
    def journal(self) -> Journal:
        found = journals.read(self.journals)
        if found is None:
            found = Journal(STAMP, Archive("/a.tar.gz", "ab" * 32, "cu", "0"), "10.99.0.21")
            journals.write(found, self.journals)
        return found

    def aside(self) -> list[dict[str, str]]:
        moved: list[dict[str, str]] = aside(self.journal, self.places(), self.root)["moved"]
        return moved

    def back(self) -> list[dict[str, str]]:
        moved: list[dict[str, str]] = back(self.journal, self.places())["moved"]
        return moved

    def place(self) -> None:
        """What a restore puts in place."""
        (self.data / "agents/machine-0").mkdir(parents=True)
        (self.data / "agents/machine-0/agent.conf").write_text("restored", encoding="utf-8")
        (self.common / "db").mkdir()
        (self.common / "db/half.wt").write_text("half a load", encoding="utf-8")
        (self.common / "server.pem").write_text("restored key", encoding="utf-8")
        (self.common / "logs").mkdir(exist_ok=True)
        (self.units / "jujud-machine-3.service").write_text("placed", encoding="utf-8")
        (self.units / f"{SERVICE}.service.d").mkdir(exist_ok=True)
        wants = self.units / "multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / "jujud-machine-3.service").symlink_to("../jujud-machine-3.service")
        with (self.homes / KEYS).open("a", encoding="utf-8") as keys:
            keys.write("the lost controller's\n")
        (self.homes / "other/.ssh").mkdir(exist_ok=True)
        (self.homes / "other/.ssh/authorized_keys").write_text("the lost controller's\n", encoding="utf-8")

    def listing(self) -> dict[str, tuple[int, int, str]]:
        """Everything below: mode, modification time, and content or link."""
        found = {}
        for path in sorted(self.base.rglob("*")):
            status = path.lstat()
            # Where the journal is, and where Juju's folder lies among those of others.
            if self.journals in (path, *path.parents) or path == self.data.parent:
                continue
            what = os.readlink(path) if path.is_symlink() else path.read_text(encoding="utf-8") if path.is_file() else ""
            found[str(path.relative_to(self.base))] = (status.st_mode, status.st_mtime_ns, what)
        return found

    def content(self) -> dict[str, str]:
        """Files that are in use, by name."""
        found = {}
        for path in self.base.rglob("*"):
            name = str(path.relative_to(self.base))
            if path.is_file() and ".failed-" not in name and ".aside-" not in name and "journals" not in name:
                found[name] = path.read_text(encoding="utf-8")
        return found

    def keys(self) -> dict[str, str]:
        return {name: text for name, text in self.content().items() if name.endswith("authorized_keys")}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


def test_everything_is_kept_and_the_host_s_own_leases_stay(host: Host) -> None:
    host.aside()
    assert host.content() == {
        "lib/juju/dqlite/controller": "own leases",
        "systemd/other.service": "not ours",
        "home/ubuntu/.ssh/authorized_keys": "the operator's\n",
    }
    assert (host.base / f"lib/juju.aside-{STAMP}/agents/machine-0/agent.conf").read_text(encoding="utf-8") == "old"
    assert (host.base / f"common/db.aside-{STAMP}/collection.wt").read_text(encoding="utf-8") == "old data"


def test_back_undoes_it_byte_for_byte(host: Host) -> None:
    before = host.listing()
    host.aside()
    host.place()
    host.back()
    assert host.listing() == before


def test_what_has_run_is_kept_beside_until_the_next_undo(host: Host) -> None:
    before, listed = host.content(), host.listing()
    host.aside()
    host.place()
    journal = host.journal
    journal.started = True
    assert str(host.common / f"db.failed-{STAMP}") in back(journal, host.places())["beside"]
    assert host.content() == before
    assert {name: one for name, one in host.listing().items() if ".failed-" not in name} == listed
    assert (host.common / f"db.failed-{STAMP}/half.wt").read_text(encoding="utf-8") == "half a load"
    assert (host.units / f"jujud-machine-3.service.failed-{STAMP}").exists()
    again, _ = begin(set_state(journal, journals.ROLLED_BACK), journal.archive, "", "20261125-000000", "me", [])
    assert again.failed == journal.failed
    back(again, host.places())
    assert not (host.common / f"db.failed-{STAMP}").exists()


def set_state(journal: Journal, state: str) -> Journal:
    journal.state = state
    return journal


def test_nothing_is_deleted_before_it_ended(host: Host) -> None:
    host.aside()
    with pytest.raises(JujuDrError, match="has not ended"):
        delete(host.journal, host.places())


def test_finalize_leaves_what_runs_and_nothing_beside(host: Host) -> None:
    host.aside()
    host.place()
    placed = host.content()
    told = kept(host.journal, host.places())
    assert {"path": str(host.common / f"db.aside-{STAMP}"), "bytes": 8} in told
    done = delete(set_state(host.journal, journals.RESTORED), host.places())
    assert done["bytes"] == sum(one["bytes"] for one in told) > 0
    assert host.content() == placed
    assert [path for path in host.base.rglob("*") if ".aside-" in path.name] == []
    assert journals.read(host.journals) is None
    assert Path(done["journal"]).exists()


def test_aside_again_starts_from_the_same_state(host: Host) -> None:
    host.aside()
    first = host.content()
    host.place()
    keys = host.keys()
    (host.common / "juju-db.config").write_text("for loading", encoding="utf-8")
    (host.common / "juju-db.config.juju-dr-aside").write_text("placed", encoding="utf-8")
    host.aside()
    assert host.content() == first | keys
    assert not (host.common / "juju-db.config").exists()


def test_a_mount_point_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(JujuDrError, match=r"Device or resource busy\. A mount point cannot be set aside"):
        host.aside()


def test_keys_that_somebody_added_meanwhile_are_never_lost(host: Host) -> None:
    before = host.listing()
    host.aside()
    host.place()
    with (host.homes / KEYS).open("a", encoding="utf-8") as keys:
        keys.write("the night shift's\n")
    host.aside()
    assert (host.homes / KEYS).read_text(encoding="utf-8").endswith("the night shift's\n")
    beside = back(host.journal, host.places())["beside"]
    failed = host.homes / f"{KEYS}.failed-{STAMP}"
    assert beside == [str(failed)]
    assert failed.read_text(encoding="utf-8") == "the operator's\nthe lost controller's\nthe night shift's\n"
    assert {name: one for name, one in host.listing().items() if ".failed-" not in name} == before
    delete(set_state(host.journal, journals.ROLLED_BACK), host.places())
    assert host.listing().keys() == before.keys()


def test_keys_that_somebody_removed_come_back_with_the_old_state(host: Host) -> None:
    before = host.content()
    host.aside()
    host.place()
    (host.homes / KEYS).unlink()
    assert back(host.journal, host.places())["beside"] == []
    assert host.content() == before


def test_back_is_done_once(host: Host) -> None:
    before = host.content()
    host.aside()
    assert host.back() != []
    host.back()
    assert host.content() == before


def test_back_without_aside_touches_nothing(host: Host) -> None:
    before = host.content()
    assert host.back() == []
    assert host.content() == before


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> bool:
    """Does it, and ends it before its n-th change of the disk; False when it had fewer."""
    count = 0

    def counting(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count > number:
                raise Killed
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for name in ("rename", "replace", "unlink", "mkdir", "rmdir"):
            patched.setattr(Path, name, counting(getattr(Path, name)))
        for module, name in ((shutil, "copy2"), (os, "utime"), (shutil, "rmtree")):
            patched.setattr(module, name, counting(getattr(module, name)))
        try:
            act()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("number", range(60))
def test_killed_anywhere_aside_is_undone_byte_for_byte(host: Host, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    before = host.listing()
    host.journal  # noqa: B018
    killed_at(monkeypatch, number, host.aside)
    host.back()
    assert host.listing() == before


@pytest.mark.parametrize("number", range(60))
def test_killed_anywhere_back_is_done_again(host: Host, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    before = host.listing()
    host.aside()
    host.place()
    killed_at(monkeypatch, number, host.back)
    host.back()
    assert host.listing() == before


@pytest.mark.parametrize("number", range(60))
def test_killed_anywhere_aside_is_done_again(host: Host, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    before = host.listing()
    host.aside()
    clean = host.content()
    host.place()
    clean |= host.keys()
    killed_at(monkeypatch, number, host.aside)
    host.aside()
    assert host.content() == clean
    host.back()
    assert host.listing() == before


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
    journal = Journal(STAMP, Archive("/a.tar.gz", "ab" * 32, "cu", "0"), "10.99.0.21")
    assert aside(journal, places) == {"moved": [], "bytes": 0}
    (bare / "lib/juju/agents").mkdir()
    back(journal, places)
    assert not (bare / "lib/juju").exists()


def test_services_are_told_with_what_ran(host: Host) -> None:
    host.running = {"jujud-machine-0"}
    assert services(host.places()) == [{"unit": SERVICE, "active": False}, {"unit": "jujud-machine-0", "active": True}]
