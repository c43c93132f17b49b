"""Which agents are back at the controller, by evidence of three kinds: its log, its documents, its connections."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from .controller_host import Run
from .peergrouper import merged_addresses
from .rules import addresses_of

LOGIN = re.compile(rb"^(?P<when>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) .*agent login: (?P<tag>\S+) for (?P<model>[0-9a-f-]{36})")
# A refused login is hung up on at once; who is still connected after this long was let in.
STANDING_SECONDS = 5.0
# Stands for "never" where dates end with the year 9999.
FAR_AWAY = 2.0**37
ESTABLISHED = "01"
CONNECTION_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


@dataclass(frozen=True)
class Expected:
    """An agent that should be back, and what its login leaves in the documents.

    :param agent: TAG@MODEL-UUID.
    :param model: its model's UUID.
    :param machine: id of the machine it runs on.
    :param status: ``_id`` of the document in ``statuses`` that it writes when it starts.
    """

    agent: str
    model: str
    machine: str
    status: str


def expected_agents(database: Any) -> list[Expected]:
    """The agents that had logged in at least once, and whose machines are not those of lost controllers."""
    own = str(database.controllers.find_one({"_id": "e"})["model-uuid"])
    lost = {str(m["machineid"]) for m in database.machines.find({"model-uuid": own, "jobs": {"$nin": [2]}})}
    living = {"life": {"$ne": 2}, "tools": {"$exists": True}}
    found = []
    for document in database.machines.find(living, {"machineid": 1, "model-uuid": 1}):
        model, machine = str(document["model-uuid"]), str(document["machineid"])
        found.append(Expected(f"machine-{machine.replace('/', '-')}@{model}", model, machine, f"{model}:m#{machine}"))
    hosts: dict[str, str] = {}
    subordinates = []
    for unit in database.units.find(living, {"name": 1, "model-uuid": 1, "machineid": 1, "application": 1, "principal": 1}):
        model, name, machine = str(unit["model-uuid"]), str(unit["name"]), str(unit.get("machineid") or "")
        if unit.get("application") == "controller" and model == own and machine in lost:
            continue
        hosts[f"{model}:{name}"] = machine
        one = Expected(f"unit-{name.replace('/', '-')}@{model}", model, machine, f"{model}:u#{name}")
        subordinates.append((one, f"{model}:{unit.get('principal')}"))
    # A subordinate unit is where its principal is.
    found += [one if one.machine else Expected(one.agent, one.model, hosts.get(p, ""), one.status) for one, p in subordinates]
    return found


def machine_addresses(database: Any) -> dict[tuple[str, str], list[str]]:
    """By model UUID and machine id: the addresses its agents may come from."""
    return {
        (str(m["model-uuid"]), str(m["machineid"])): addresses_of({"addresses": merged_addresses(m)})
        for m in database.machines.find(
            {"life": {"$ne": 2}}, {"addresses": 1, "machineaddresses": 1, "machineid": 1, "model-uuid": 1}
        )
    }


def started_at(unit: str, run: Run) -> float:
    """Since when a service's main process runs, seconds since the epoch by this host's clock; infinite when it does not."""
    _, output, _ = run(["systemctl", "show", "--property=MainPID", unit])
    pid = output.strip().partition("=")[2]
    try:
        ticks = Path(f"/proc/{pid or 0}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
        booted = re.search(r"(?m)^btime (\d+)$", Path("/proc/stat").read_text(encoding="ascii"))
    except OSError:
        return float("inf")
    return (int(booted.group(1)) if booted else 0) + int(ticks) / os.sysconf("SC_CLK_TCK")


class Log:
    """The controller's own log, read on from where it was read to."""

    def __init__(self, path: Path, since: float) -> None:
        self._path, self._since, self._position = path, min(since, FAR_AWAY), 0
        self._rest = b""
        self.seen: set[str] = set()

    def read_on(self) -> set[str]:
        """All agents, TAG@MODEL-UUID, that logged in since the given moment."""
        if not self._path.exists():
            return self.seen
        if self._path.stat().st_size < self._position:
            # It was rotated meanwhile.
            self._position, self._rest = 0, b""
        with open(self._path, "rb") as log:
            log.seek(self._position)
            for line in log:
                line = self._rest + line
                self._rest = b"" if line.endswith(b"\n") else line
                matched = None if self._rest else LOGIN.match(line)
                if matched and _seconds(matched.group("when")) >= int(self._since):
                    self.seen.add(f"{matched.group('tag').decode()}@{matched.group('model').decode()}")
            self._position = log.tell()
        return self.seen


def _seconds(stamp: bytes) -> float:
    """Juju's log is in UTC."""
    return datetime.strptime(stamp.decode(), "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()


def in_documents(database: Any, agents: Iterable[Expected], since: float) -> set[str]:
    """Agents that wrote, through the API, what only a started agent writes: a machine its start, every agent its status.

    The controller stamps what they write with its own clock, so a stamp of the future is one of the old controller's.
    """
    wanted = {one.status: one.agent for one in agents}
    first, last = min(since, FAR_AWAY), time.time() + 1
    found = set()
    for status in database.statuses.find({"_id": {"$in": list(wanted)}}, {"updated": 1}):
        # Nanoseconds; Juju 1.x and mended documents have dates or nothing.
        updated = status.get("updated")
        if isinstance(updated, int) and first <= updated / 1e9 <= last:
            found.add(wanted[str(status["_id"])])
    began, ended = (datetime.fromtimestamp(one, timezone.utc) for one in (first, last))
    machines = {one.status.replace(":m#", ":", 1): one.agent for one in agents if ":m#" in one.status}
    query = {"_id": {"$in": list(machines)}, "agent-started-at": {"$gte": began, "$lte": ended}}
    found |= {machines[str(one["_id"])] for one in database.machines.find(query, {"_id": 1})}
    return found


def peers(tables: Sequence[str], port: int) -> list[tuple[str, int]]:
    """Address and port of everyone who is connected to a local port, from the kernel's tables of TCP connections."""
    found = []
    for line in (line for table in tables for line in table.splitlines()):
        fields = line.split()
        if len(fields) < 4 or fields[3] != ESTABLISHED or int(fields[1].rpartition(":")[2], 16) != port:
            continue
        address, _, remote_port = fields[2].rpartition(":")
        found.append((_address(address), int(remote_port, 16)))
    return found


def _address(hexadecimal: str) -> str:
    """The kernel prints each 32 bits as one number, in the byte order of the host."""
    raw = bytes.fromhex(hexadecimal)
    words = [int.from_bytes(raw[at : at + 4], "big") for at in range(0, len(raw), 4)]
    parsed = ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


class Standing:
    """Connections that are looked at again and again: those that last."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], float] = {}

    def addresses(self, now_connected: Iterable[tuple[str, int]], now: float) -> dict[str, int]:
        """By address, how many of its connections have stood long enough."""
        self._since = {peer: self._since.get(peer, now) for peer in now_connected}
        counts: dict[str, int] = {}
        for (address, _), since in self._since.items():
            if now - since >= STANDING_SECONDS:
                counts[address] = counts.get(address, 0) + 1
        return counts


def by_connections(
    agents: Iterable[Expected], addresses: Mapping[tuple[str, str], Sequence[str]], standing: Mapping[str, int]
) -> dict[str, str]:
    """Evidence for agents by their machines' connections: one speaks for the machine agent, as many as agents for all of them.

    An address that two machines share, as behind a NAT, speaks for none.
    """
    owners: dict[str, set[tuple[str, str]]] = {}
    for key, listed in addresses.items():
        for address in listed:
            owners.setdefault(address, set()).add(key)
    groups: dict[tuple[str, str], list[str]] = {}
    for one in agents:
        groups.setdefault((one.model, one.machine), []).append(one.agent)
    found = {}
    for key, names in groups.items():
        mine = {a: standing[a] for a in addresses.get(key, ()) if standing.get(a) and owners[a] == {key}}
        count = sum(mine.values())
        back = names if count >= len(names) else [name for name in names if name.startswith("machine-")] if count else []
        found.update({name: f"connection: {count} from {', '.join(mine)}" for name in back})
    return found


class Watch:
    """Looks for agents again and again; what was seen once stays seen.

    :param since: only what happened after that moment counts.
    """

    def __init__(self, database: Any, log_file: Path, api_port: int, since: float) -> None:
        self._database, self._port, self._since = database, api_port, since
        self._log, self._standing = Log(log_file, since), Standing()
        self.expected = expected_agents(database)
        self._addresses = machine_addresses(database)
        self.seen: dict[str, str] = {}

    def look(self) -> dict[str, str]:
        """By agent, TAG@MODEL-UUID, the evidence of its return."""
        tables = [path.read_text(encoding="ascii") for path in CONNECTION_TABLES if path.exists()]
        standing = self._standing.addresses(peers(tables, self._port), time.monotonic())
        logged = self._log.read_on()
        for one in self.expected:
            if one.agent in logged:
                self.seen.setdefault(one.agent, "log: its login")
        missing = [one for one in self.expected if one.agent not in self.seen]
        if missing:
            written = in_documents(self._database, missing, self._since)
            self.seen.update(dict.fromkeys(written, "documents: it wrote its start or status"))
            for agent, evidence in by_connections(self.expected, self._addresses, standing).items():
                self.seen.setdefault(agent, evidence)
        return self.seen
