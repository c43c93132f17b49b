from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr.archive import unpack
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.place_files import Host, Placed, place

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "fixtures"
VERSIONS = {"2.9": "2.9.61", "3.x": "3.6.26"}


def run(_: list[str]) -> tuple[int, str, str]:
    return 0, "", ""


@pytest.fixture(params=sorted(VERSIONS))
def version(request: pytest.FixtureRequest) -> str:
    return VERSIONS[str(request.param)]


@pytest.fixture
def root(version: str, tmp_path: Path) -> Path:
    """The unpacked root of Juju's own archive."""
    return Path(unpack(str(FIXTURES / f"juju-{version}-single.tar.gz"), str(tmp_path / "unpacked"), "")["root"])


@pytest.fixture
def host(version: str, tmp_path: Path) -> Host:
    """A freshly bootstrapped host whose data was set aside: its own tools and, on 3.x, its dqlite/ are there."""
    host = Host(tmp_path / "host")
    tools = host.data / "tools" / f"{version}.1-ubuntu-amd64"
    tools.mkdir(parents=True)
    (tools / "jujud").write_text("the host's own", encoding="utf-8")
    host.common.mkdir(parents=True)
    (host.common / "juju-db.config.aside-20261124-101500").write_text("dbpath = /own\n", encoding="utf-8")
    if version.startswith("3"):
        (host.data / "dqlite").mkdir()
        (host.data / "dqlite" / "controller").write_text("own leases", encoding="utf-8")
    return host


def placed(root: Path, host: Host, version: str, same_address: bool = False) -> Placed:
    return place(root, "0", f"{version}.1", same_address, run, host)


def test_what_juju_s_archive_lacks_is_made_from_agent_conf(root: Path, host: Host, version: str) -> None:
    placed(root, host, version)
    with tarfile.open(FIXTURES / f"juju-{version}-controller-files.tar.gz") as tar:
        for name in ("var/lib/juju/ca.crt", "var/snap/juju-db/common/ca.crt", "var/snap/juju-db/common/shared-secret"):
            content = tar.extractfile(name)
            assert content is not None
            assert (host.base / name).read_bytes().strip() == content.read().strip(), name
            assert (host.base / name).stat().st_mode & 0o777 == 0o600
        for ending in (".service", "-exec-start.sh"):
            name = f"etc/systemd/system/jujud-machine-0{ending}"
            content = tar.extractfile(name)
            assert content is not None
            assert (host.base / name).read_text(encoding="utf-8").strip() == content.read().decode().strip()
    assert (host.units / "jujud-machine-0-exec-start.sh").stat().st_mode & 0o111


def test_the_host_s_own_tools_configuration_and_leases_stay(root: Path, host: Host, version: str) -> None:
    result = placed(root, host, version)
    link = host.data / "tools" / "machine-0"
    assert str(link.readlink()) == f"{version}.1-ubuntu-amd64"
    assert (link / "jujud").read_text(encoding="utf-8") == "the host's own"
    assert (host.common / "juju-db.config").read_text(encoding="utf-8") == "dbpath = /own\n"
    assert any("known to run here" in line for line in result.kept)
    if version.startswith("3"):
        assert (host.data / "dqlite" / "controller").read_text(encoding="utf-8") == "own leases"


def test_a_bare_host_gets_a_configuration_of_mongod(root: Path, host: Host, version: str) -> None:
    (host.common / "juju-db.config.aside-20261124-101500").unlink()
    placed(root, host, version)
    text = (host.common / "juju-db.config").read_text(encoding="utf-8")
    with tarfile.open(FIXTURES / f"juju-{version}-controller-files.tar.gz") as tar:
        content = tar.extractfile("var/snap/juju-db/common/juju-db.config")
        assert content is not None
        theirs = content.read().decode()

    def settings(config: str) -> dict[str, str]:
        pairs = (line.split("=", 1) for line in config.splitlines() if "=" in line and not line.startswith("#"))
        return {key.strip(): value.strip() for key, value in pairs}

    assert settings(text) == settings(theirs)


def test_no_agent_binary_anywhere_is_refused(root: Path, host: Host, version: str) -> None:
    (host.data / "tools" / f"{version}.1-ubuntu-amd64" / "jujud").write_text("", encoding="utf-8")
    with pytest.raises(JujuDrError, match="agent binary"):
        placed(root, host, version)


def test_the_archive_s_dqlite_goes_back_to_the_same_address_only(root: Path, host: Host) -> None:
    (root / "var/lib/juju/dqlite").mkdir()
    (root / "var/lib/juju/dqlite/controller").write_text("old leases", encoding="utf-8")
    (root / "var/lib/juju/raft").mkdir()
    for path in (host.data / "dqlite").glob("*"):
        path.unlink()
    if (host.data / "dqlite").exists():
        (host.data / "dqlite").rmdir()
    version = "3.6.26" if list((host.data / "tools").glob("3*")) else "2.9.61"
    assert any("names the old address" in line for line in placed(root, host, version).left_out)
    assert not (host.data / "dqlite").exists()
    placed(root, host, version, same_address=True)
    assert (host.data / "dqlite/controller").read_text(encoding="utf-8") == "old leases"
    assert not (host.data / "raft").exists()


def test_keys_are_added_and_none_is_lost(root: Path, host: Host, version: str) -> None:
    keys = host.base / "home/ubuntu/.ssh/authorized_keys"
    keys.parent.mkdir(parents=True)
    keys.write_text("ssh-ed25519 AAAA operator\n", encoding="utf-8")
    placed(root, host, version)
    lines = keys.read_text(encoding="utf-8").splitlines()
    archived = (root / "home/ubuntu/.ssh/authorized_keys").read_text(encoding="utf-8").splitlines()
    assert lines == ["ssh-ed25519 AAAA operator", *[line for line in archived if line]]
    assert placed(root, host, version).merged == []


def test_a_key_s_comment_may_be_in_any_encoding(root: Path, host: Host, version: str) -> None:
    keys = host.base / "home/ubuntu/.ssh/authorized_keys"
    keys.parent.mkdir(parents=True)
    keys.write_bytes(b"ssh-ed25519 AAAA J\xfcrgen\n")
    placed(root, host, version)
    assert keys.read_bytes().startswith(b"ssh-ed25519 AAAA J\xfcrgen\n")
    assert len(keys.read_bytes().splitlines()) > 1


def test_logs_never_cover_logs(root: Path, host: Host, version: str) -> None:
    for base, text in ((root, "old"), (host.base, "own")):
        (base / "var/log/juju").mkdir(parents=True)
        (base / "var/log/juju/machine-0.log").write_text(text, encoding="utf-8")
    (root / "var/log/juju/unit-x-0.log").write_text("old", encoding="utf-8")
    placed(root, host, version)
    assert (host.base / "var/log/juju/machine-0.log").read_text(encoding="utf-8") == "own"
    assert (host.base / "var/log/juju/unit-x-0.log").read_text(encoding="utf-8") == "old"


def test_another_machine_is_not_in_it(root: Path, host: Host, version: str) -> None:
    with pytest.raises(JujuDrError, match=r"no agent\.conf of machine 5"):
        place(root, "5", f"{version}.1", False, run, host)


def test_what_the_archive_brings_goes_where_the_host_has_none(root: Path, host: Host, version: str) -> None:
    """Agent binaries, limits of juju-db and logs; keys that are there already are not added again."""
    tools = root / "var/lib/juju/tools" / f"{version}.1-ubuntu-arm64"
    tools.mkdir(parents=True)
    (tools / "jujud").write_text("the archive's", encoding="utf-8")
    (host.data / "tools" / tools.name).mkdir()
    (host.data / "tools" / f"{version}.1-ubuntu-amd64" / "FORCE-VERSION").write_text("", encoding="utf-8")
    limits = root / "etc/systemd/system/snap.juju-db.daemon.service.d"
    limits.mkdir(parents=True)
    (limits / "limits.conf").write_text("[Service]\n", encoding="utf-8")
    logs = root / "var/log/juju"
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "machine-0.log").write_text("old log\n", encoding="utf-8")
    (host.base / "var/log/juju").mkdir(parents=True)
    (host.base / "var/log/juju/audit.log").write_text("own\n", encoding="utf-8")
    (logs / "audit.log").write_text("the archive's\n", encoding="utf-8")
    keys = root / "home/ubuntu/.ssh/authorized_keys"
    keys.parent.mkdir(parents=True, exist_ok=True)
    keys.write_text("one\n", encoding="utf-8")
    own = host.base / "home/ubuntu/.ssh/authorized_keys"
    own.parent.mkdir(parents=True)
    own.write_text("one\n", encoding="utf-8")
    result = placed(root, host, version)
    assert f"/var/lib/juju/tools/{tools.name}" in result.placed
    assert (host.data / "tools" / tools.name / "jujud").read_text(encoding="utf-8") == "the archive's"
    assert any(line.endswith("FORCE-VERSION") for line in result.kept)
    assert (host.units / "snap.juju-db.daemon.service.d/limits.conf").exists()
    assert (host.base / "var/log/juju/machine-0.log").read_text(encoding="utf-8") == "old log\n"
    assert (host.base / "var/log/juju/audit.log").read_text(encoding="utf-8") == "own\n"
    assert result.merged == []
    # What the archive brought of units is copied, not made.
    (root / "etc/systemd/system/jujud-machine-0.service").write_text("[Unit]\n# its own\n", encoding="utf-8")
    placed(root, host, version)
    assert (host.units / "jujud-machine-0.service").read_text(encoding="utf-8") == "[Unit]\n# its own\n"


def test_a_host_without_syslog_s_user_is_said(root: Path, host: Host, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise LookupError

    monkeypatch.setattr(shutil, "chown", unknown)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda *_, **__: None)
    result = placed(root, host, version)
    assert "/var/log/juju: there is no user syslog to own it" in result.left_out
