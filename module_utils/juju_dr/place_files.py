"""The archive's files onto a host: what is placed, what of the host stays, what is merged, what is left out, and why."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping

from .agent_conf import AgentConf, parse
from .authorized_keys import merged, text_of
from .controller_host import Run
from .errors import JujuDrError
from .files import FRESH, own_like, write_whole
from .schema import generation

DATA = "var/lib/juju"
COMMON = "var/snap/juju-db/common"
# raft/ names the old address, and Juju 2.9 makes a new one.
_NEVER = ("raft",)

_CONFIG = """\
# Written by juju-dr; jujud writes it anew.
auth = true
bind_ip_all = true
dbpath = {common}/db
ipv6 = true
journal = true
keyFile = {common}/shared-secret
logpath = {common}/logs/mongodb.log
oplogSize = 1024
port = {port}
quiet = true
replSet = juju
slowms = 1000
storageEngine = wiredTiger
tlsAllowInvalidHostnames = true
tlsCAFile = {common}/ca.crt
tlsCertificateKeyFile = {common}/server.pem
tlsCertificateKeyFilePassword=ignored
tlsMode = requireTLS
"""

_AFTER_29 = "After=syslog.target\nAfter=network.target\nAfter=systemd-user-sessions.service\n"
_AFTER_3X = (
    "Requires=network.target\nRequires=local-fs.target\nWants=lxd-agent.target\nAfter=syslog.target\nAfter=network.target\n"
    "After=local-fs.target\nAfter=lxd-agent.target\nAfter=systemd-user-sessions.service\n"
)
_UNIT = """\
[Unit]
Description=juju agent for machine-{id}
{after}
[Service]
LimitNOFILE=64000
ExecStart=/etc/systemd/system/jujud-machine-{id}-exec-start.sh
Restart=on-failure
TimeoutSec=300

[Install]
WantedBy=multi-user.target
"""
_SCRIPT = """\
#!/usr/bin/env bash

# Set up logging.
touch '/var/log/juju/machine-{id}.log'
chown syslog:adm '/var/log/juju/machine-{id}.log'
chmod 0640 '/var/log/juju/machine-{id}.log'
exec >> '/var/log/juju/machine-{id}.log'
exec 2>&1

# Run the script.
'/var/lib/juju/tools/machine-{id}/jujud' machine --data-dir '/var/lib/juju' --machine-id {id} --debug
"""


@dataclass(frozen=True)
class Host:
    """Where things are on the host.

    :param base: ``/``; tests put a folder here.
    """

    base: Path = Path("/")

    @property
    def data(self) -> Path:
        return self.base / DATA

    @property
    def common(self) -> Path:
        return self.base / COMMON

    @property
    def units(self) -> Path:
        return self.base / "etc/systemd/system"


@dataclass
class Placed:
    """What was done with each path, and why where it is not plain."""

    placed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def place(root: Path, machine_id: str, version: str, same_address: bool, run: Run, host: Host | None = None) -> Placed:
    """Places the unpacked ``root`` on the host, whose own data was set aside before.

    :raises JujuDrError: no agent.conf of the machine in the archive, no usable jujud anywhere.
    """
    host, result = host or Host(), Placed()
    conf_path = root / DATA / "agents" / f"machine-{machine_id}" / "agent.conf"
    if not conf_path.exists():
        raise JujuDrError(f"The archive has no agent.conf of machine {machine_id}", "Take another archive")
    conf = parse(conf_path.read_text(encoding="utf-8"))
    _place_data(root / DATA, host, version, same_address, result)
    _tools_link(host, machine_id, version, result)
    _place_common(root / COMMON, host, conf, result)
    _place_units(root / "etc/systemd/system", host, machine_id, version, result)
    _merge_keys(root, host, result)
    _place_logs(root / "var/log/juju", host, result)
    run(["systemctl", "daemon-reload"])
    return result


def _place_data(source: Path, host: Host, version: str, same_address: bool, result: Placed) -> None:
    host.data.mkdir(mode=0o755, parents=True, exist_ok=True)
    for entry in sorted(source.iterdir()):
        target = host.data / entry.name
        if entry.name == "tools":
            _place_tools(entry, target, version, result)
        elif entry.name in _NEVER:
            result.left_out.append(f"/{DATA}/{entry.name}: Juju makes it anew for this address")
        elif entry.name == "dqlite" and (target.exists() or not same_address):
            what = "the host's own fits this address" if target.exists() else "it names the old address"
            (result.kept if target.exists() else result.left_out).append(f"/{DATA}/dqlite: {what}")
        else:
            _copy(entry, target)
            result.placed.append(f"/{DATA}/{entry.name}")


def _place_tools(source: Path, target: Path, version: str, result: Placed) -> None:
    target.mkdir(mode=0o755, exist_ok=True)
    for entry in sorted(source.iterdir()):
        own = target / entry.name
        if entry.is_symlink() or not entry.is_dir():
            continue
        if _usable(own):
            result.kept.append(f"/{DATA}/tools/{entry.name}: the host's own is known to run here")
        elif _usable(entry):
            if own.exists():
                shutil.rmtree(own)
            _copy(entry, own)
            result.placed.append(f"/{DATA}/tools/{entry.name}")
        else:
            result.left_out.append(f"/{DATA}/tools/{entry.name}: its jujud is empty")


def _usable(tools: Path) -> bool:
    jujud = tools / "jujud"
    return jujud.is_file() and jujud.stat().st_size > 0


def _tools_link(host: Host, machine_id: str, version: str, result: Placed) -> None:
    usable = sorted(p.name for p in (host.data / "tools").glob(f"{version}-*") if not p.is_symlink() and _usable(p))
    if not usable:
        raise JujuDrError(
            f"Neither the archive nor this host has an agent binary (jujud) of version {version}",
            f"Put it into /{DATA}/tools/{version}-ubuntu-ARCH, or bootstrap the host with that version",
        )
    names = [f"machine-{machine_id}"] + [p.name for p in (host.data / "agents").glob("unit-*")]
    for name in names:
        link = host.data / "tools" / name
        if link.is_symlink() or link.exists():
            link.unlink()
        link.symlink_to(usable[0])
        result.placed.append(f"/{DATA}/tools/{name}")
    wanted = host.data / "tools" / usable[0] / "FORCE-VERSION"
    if wanted.exists():
        result.kept.append(f"/{DATA}/tools/{usable[0]}/FORCE-VERSION")


def _place_common(source: Path, host: Host, conf: AgentConf, result: Placed) -> None:
    """agent.conf is the stronger source: jujud writes these files from it at every start."""
    host.common.mkdir(mode=0o755, parents=True, exist_ok=True)
    (host.common / "logs").mkdir(mode=0o755, exist_ok=True)
    texts: Mapping[str, str] = {
        "server.pem": conf.require("controllercert").rstrip("\n") + "\n" + conf.require("controllerkey"),
        "ca.crt": conf.require("cacert"),
        "shared-secret": conf.require("sharedsecret"),
        "juju-db.config": _CONFIG.format(common=f"/{COMMON}", port=conf.require("stateport")),
    }
    for name, text in texts.items():
        if (source / name).exists():
            _copy(source / name, host.common / name)
        elif name == "server.pem" and (host.data / name).exists():
            _copy(host.data / name, host.common / name)
        elif name == "juju-db.config" and (aside := _newest_aside(host.common, name)) is not None:
            _copy(aside, host.common / name)
            result.kept.append(f"/{COMMON}/{name}: the host's own")
            continue
        else:
            write_whole(host.common / name, text, 0o644 if name == "juju-db.config" else 0o600)
        result.placed.append(f"/{COMMON}/{name}")
    if not (host.data / "ca.crt").exists():
        write_whole(host.data / "ca.crt", texts["ca.crt"], 0o600)


def _newest_aside(folder: Path, name: str) -> Path | None:
    found = sorted(folder.glob(f"{name}.aside-*"))
    return found[-1] if found else None


def _place_units(source: Path, host: Host, machine_id: str, version: str, result: Placed) -> None:
    after = _AFTER_29 if generation(version) == "2.9" else _AFTER_3X
    host.units.mkdir(parents=True, exist_ok=True)
    for name, text, mode in (
        (f"jujud-machine-{machine_id}.service", _UNIT.format(id=machine_id, after=after), 0o644),
        (f"jujud-machine-{machine_id}-exec-start.sh", _SCRIPT.format(id=machine_id), 0o755),
    ):
        if (source / name).exists():
            _copy(source / name, host.units / name)
        else:
            write_whole(host.units / name, text, mode)
        result.placed.append(f"/etc/systemd/system/{name}")
    limits = "snap.juju-db.daemon.service.d"
    if (source / limits).is_dir() and not (host.units / limits).exists():
        _copy(source / limits, host.units / limits)
        result.placed.append(f"/etc/systemd/system/{limits}")


def _merge_keys(root: Path, host: Host, result: Placed) -> None:
    """Adds the archive's authorized keys to the host's; none is removed, so that nobody is locked out."""
    for source in sorted(root.glob("home/*/.ssh/authorized_keys")):
        home = host.base / source.relative_to(root).parent.parent
        if not home.is_dir():
            result.left_out.append(f"/{source.relative_to(root)}: there is no such user here")
            continue
        target = home / ".ssh" / "authorized_keys"
        own = text_of(target)
        both = merged(own, text_of(source))
        if both == own:
            continue
        owner = home.stat()
        target.parent.mkdir(mode=0o700, exist_ok=True)
        write_whole(target, both, 0o600)
        if os.geteuid() == 0:
            for path in (target.parent, target):
                os.chown(path, owner.st_uid, owner.st_gid)
        added = len(both.splitlines()) - len(own.splitlines())
        result.merged.append(f"/{source.relative_to(root)}: {added} keys added")


def _place_logs(source: Path, host: Host, result: Placed) -> None:
    target = host.base / "var/log/juju"
    if not target.exists():
        target.mkdir(mode=0o755, parents=True)
        if os.geteuid() == 0:
            try:
                shutil.chown(target, "syslog", "adm")
            except LookupError:
                result.left_out.append("/var/log/juju: there is no user syslog to own it")
    for entry in sorted(source.iterdir()) if source.is_dir() else []:
        if not (target / entry.name).exists():
            _copy(entry, target / entry.name)
            result.placed.append(f"/var/log/juju/{entry.name}")


def _copy(source: Path, target: Path) -> None:
    """A copy with owner, mode and time; links stay links. Files appear whole."""
    if source.is_dir() and not source.is_symlink():
        target.mkdir(mode=0o700, exist_ok=True)
        for entry in source.iterdir():
            _copy(entry, target / entry.name)
        shutil.copystat(source, target)
    else:
        fresh = target.with_name(target.name + FRESH)
        shutil.copy2(source, fresh, follow_symlinks=False)
        own_like(source, fresh)
        fresh.replace(target)
    own_like(source, target)
