"""What must be true after a restore, each with its evidence; waits for it, but not for ever."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Sequence

from .controller_host import Run, controller_client
from .errors import JujuDrError
from .peergrouper import desired, documents_from, members_from, read_collections
from .probe import api_answers

LOGIN = re.compile(r"agent login: (?P<tag>\S+) for (?P<model>[0-9a-f-]{36})")
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Proof:
    """One thing that must be true.

    :param evidence: what was seen, for the report.
    """

    name: str
    ok: bool
    evidence: str


@dataclass(frozen=True)
class Restored:
    """The controller that is judged.

    :param log_offset: byte of the agent's log where this run begins.
    :param without: agents not waited for, TAG@MODEL-UUID.
    """

    address: str
    machine_id: str
    api_port: int
    state_port: int
    ca_cert: str
    data_dir: str
    mongo_common: str
    log_file: Path
    log_offset: int = 0
    without: frozenset[str] = field(default_factory=frozenset)

    @property
    def host(self) -> str:
        return f"{self.address}:{self.state_port}"


def mongo_primary(one: Restored, run: Run) -> Proof:
    name = "mongo-primary"
    try:
        with controller_client(one.data_dir, one.mongo_common) as client:
            hello = client.admin.command("isMaster")
    except JujuDrError as error:
        return Proof(name, False, str(error))
    return Proof(name, bool(hello.get("ismaster")) and hello.get("me") == one.host, f"primary is {hello.get('primary')}")


def jujud_active(one: Restored, run: Run) -> Proof:
    unit = f"jujud-machine-{one.machine_id}"
    _, output, _ = run(["systemctl", "show", "--property=ActiveState,NRestarts", unit])
    shown = dict(line.partition("=")[::2] for line in output.splitlines())
    ok = shown.get("ActiveState") == "active" and shown.get("NRestarts") == "0"
    evidence = f"{unit} is {shown.get('ActiveState', 'unknown')}, restarted {shown.get('NRestarts', '?')} times"
    return Proof("jujud-active", ok, evidence if ok else f"{evidence}; its log ends: {_log_end(one)}")


def api(one: Restored, run: Run) -> Proof:
    line = api_answers(one.address, one.api_port, one.ca_cert, 3.0)
    return Proof("api-answers", bool(line), f"{one.address}:{one.api_port} answers {line!r} with this controller's certificate")


def peergrouper_keeps_member(one: Restored, run: Run) -> Proof:
    name = "peergrouper-keeps-member"
    try:
        with controller_client(one.data_dir, one.mongo_common) as client:
            config = client.admin.command("replSetGetConfig")["config"]
            status = client.admin.command("replSetGetStatus")
            documents = documents_from(read_collections(client.juju))
    except JujuDrError as error:
        return Proof(name, False, str(error))
    decision = desired(documents, members_from(config, status))
    ok = decision.keeps(one.machine_id, one.host) and decision.steady
    return Proof(
        name, ok, f"{one.host} stays, nothing to change" if ok else f"it would make of {config['members']}: {decision}"
    )


def agents_logged_in(one: Restored, run: Run) -> Proof:
    expected, seen = expected_agents(one), logins(one.log_file, one.log_offset)
    missing = sorted(expected - seen)
    evidence = f"{len(expected & seen)} of {len(expected)} agents logged in"
    return Proof("agents-logged-in", not missing, evidence + (f"; not yet: {', '.join(missing)}" if missing else ""))


CHECKS: dict[str, Callable[[Restored, Run], Proof]] = {
    "mongo-primary": mongo_primary,
    "jujud-active": jujud_active,
    "api-answers": api,
    "peergrouper-keeps-member": peergrouper_keeps_member,
    "agents-logged-in": agents_logged_in,
}


def prove(one: Restored, names: Sequence[str], deadline_seconds: float, run: Run) -> list[Proof]:
    """Repeats each check until it holds or the common deadline ends."""
    end = time.monotonic() + deadline_seconds
    proofs = []
    for name in names:
        proof = CHECKS[name](one, run)
        while not proof.ok and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
            proof = CHECKS[name](one, run)
        proofs.append(proof)
    return proofs


def expected_agents(one: Restored) -> set[str]:
    """The agents that should come back, as TAG@MODEL-UUID: those that had logged in at least once before."""
    with controller_client(one.data_dir, one.mongo_common) as client:
        database = client.juju
        lost = {str(m["machineid"]) for m in database.machines.find({"model-uuid": _model(database), "jobs": {"$nin": [2]}})}
        found = {
            f"machine-{str(m['machineid']).replace('/', '-')}@{m['model-uuid']}"
            for m in database.machines.find({"life": {"$ne": 2}, "tools": {"$exists": True}})
        }
        found |= {
            f"unit-{str(u['name']).replace('/', '-')}@{u['model-uuid']}"
            for u in database.units.find({"life": {"$ne": 2}, "tools": {"$exists": True}})
            if not (u.get("application") == "controller" and str(u.get("machineid")) in lost)
        }
    return found - one.without


def _model(database: Any) -> str:
    return str(database.controllers.find_one({"_id": "e"})["model-uuid"])


def logins(log_file: Path, offset: int) -> set[str]:
    """Who logged in, as TAG@MODEL-UUID, by the controller's own log."""
    if not log_file.exists():
        return set()
    with open(log_file, "rb") as log:
        # A log that was rotated meanwhile is read from its beginning.
        log.seek(offset if offset <= log_file.stat().st_size else 0)
        found = (LOGIN.search(line.decode("utf-8", "replace")) for line in log)
        return {f"{one.group('tag')}@{one.group('model')}" for one in found if one}


def _log_end(one: Restored, lines: int = 3) -> str:
    if not one.log_file.exists():
        return "no log"
    return " | ".join(one.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
