"""Whether a host can become the restored controller machine: every obstacle at once, each with its cure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

# A loaded database against its dump: indexes come on top, and the storage engine packs worst what is small and many.
DATABASE_FACTOR = 1.5
# An empty mongod writes its journal and caches all the same.
DATABASE_FLOOR = 512 * 2**20
# Every restore leaves a journal and copies of keys.
WORK_FLOOR = 4 * 2**20


@dataclass(frozen=True)
class Room:
    """The disk below one place of the host.

    :param device: places with the same number share one disk.
    :param free: bytes free on it.
    :param copied: bytes of the host's own files there that are copied and not only renamed.
    """

    device: int
    free: int
    copied: int = 0


@dataclass(frozen=True)
class Target:
    """What is asked of the host.

    :param info: result of ``juju_controller_info`` on it.
    :param interfaces: its addresses with prefix length, for example ``10.99.0.21/24``.
    :param tools: folder names below ``tools/`` that hold a usable jujud.
    :param rooms: ``work`` (journal and unpacked archive), ``data`` and ``common`` folder.
    :param mounts: places that would have to be renamed and are mount points.
    """

    info: Mapping[str, Any]
    interfaces: Sequence[str]
    tools: Sequence[str]
    rooms: Mapping[str, Room] = field(default_factory=dict)
    mounts: Sequence[str] = ()


def subnet_of(address: str, interfaces: Sequence[str]) -> str:
    """The subnet of one of the host's own addresses, or an empty string when the host does not have it.

    >>> subnet_of("10.99.0.21", ["127.0.0.1/8", "10.99.0.21/24"])
    '10.99.0.0/24'
    """
    for interface in interfaces:
        parsed = ipaddress.ip_interface(interface)
        if str(parsed.ip) == address:
            return str(parsed.network)
    return ""


def room_needed(archive: Mapping[str, Any], rooms: Mapping[str, Room]) -> dict[str, int]:
    """Bytes a restore needs in each place. What is set aside is renamed and needs none.

    :param archive: result of ``juju_archive_info``: ``size``, ``unpacked_bytes`` and, of that, ``root_bytes``.
    """
    unpacked, root = int(archive["unpacked_bytes"]), int(archive["root_bytes"])
    needed = {
        "work": int(archive["size"]) + unpacked + WORK_FLOOR,
        "data": root,
        "common": int((unpacked - root) * DATABASE_FACTOR) + DATABASE_FLOOR,
    }
    return {place: needed[place] + room.copied for place, room in rooms.items()}


def _too_small(archive: Mapping[str, Any], rooms: Mapping[str, Room]) -> list[str]:
    needed, found = room_needed(archive, rooms), []
    for device in sorted({room.device for room in rooms.values()}):
        places = [place for place, room in rooms.items() if room.device == device]
        wanted, free = sum(needed[place] for place in places), min(rooms[place].free for place in places)
        if free < wanted:
            names = {"work": "/var/lib/juju-dr", "data": "/var/lib/juju", "common": "/var/snap/juju-db/common"}
            where = " and ".join(names[place] for place in places)
            found.append(f"only {free // 2**20} MiB are free at {where}, {wanted // 2**20} MiB are needed: make room there.")
    return found


def obstacles(archive: Mapping[str, Any], target: Target, address: str, override: str, resumed: bool = False) -> list[str]:
    """What stands in the way, one sentence with its cure each; empty when the host is ready.

    :param archive: result of ``juju_archive_info``.
    :param address: address that agents shall use.
    :param override: the controller's UUID, spelled out, to restore over a host that already is this controller.
    :param resumed: an earlier run found the host ready and was interrupted: what it has changed since is no obstacle.
    """
    info, version = target.info, str(archive["version"])
    found = []
    if not info.get("pymongo"):
        found.append("python3-pymongo is missing there: apt-get install python3-pymongo.")
    if not info.get("juju_db_installed"):
        found.append("juju-db is not installed there: snap install juju-db --channel 4.4/stable.")
    if not subnet_of(address, target.interfaces):
        found.append(
            f"{address} is not an address of that host (it has {', '.join(target.interfaces) or 'none'}): "
            "set juju_restore_address to the address agents shall use."
        )
    if resumed:
        return found
    found += [f"{place} is a mount point and cannot be set aside: mount it elsewhere." for place in target.mounts]
    if info.get("is_controller") and info.get("controller_uuid") == archive["controller_uuid"]:
        if override != archive["controller_uuid"]:
            found.append(
                f"it already is controller {archive['controller_uuid']}, perhaps restored before: nothing to do, "
                f"or set bootstrap_safe_mode_override={archive['controller_uuid']} to restore over it."
            )
    elif info.get("is_controller") and info.get("version") != version:
        found.append(f"it runs Juju {info.get('version')}, the archive {version}: bootstrap it with agent version {version}.")
    if archive["generation"] == "3.x" and not info.get("has_dqlite") and address not in archive["addresses"]:
        found.append(
            f"it has no /var/lib/juju/dqlite, and Juju {version} makes that folder only at bootstrap, so its API would "
            f"never open: bootstrap a controller of version {version} on it (any name), then run the restore again."
        )
    if not archive["has_agent_binary"] and not any(name.startswith(version + "-") for name in target.tools):
        found.append(
            f"neither the archive nor that host has an agent binary (jujud) of version {version}: "
            f"put it into /var/lib/juju/tools/{version}-ubuntu-ARCH, or bootstrap the host with that version."
        )
    return found + _too_small(archive, target.rooms)
