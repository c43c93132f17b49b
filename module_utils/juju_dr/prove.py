"""What must be true after a restore, each with its evidence; waits for it, but not for ever."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Callable, Sequence

from pymongo.errors import PyMongoError

from .controller_host import Run, controller_client
from .errors import JujuDrError
from .peergrouper import desired, documents_from, members_from, read_collections
from .presence import Watch, started_at
from .probe import api_answers

AGENTS = "agents-logged-in"
POLL_SECONDS = 0.5
# A look at thousands of agents is not free on the controller that they are returning to.
AGENTS_POLL_SECONDS = 1.0


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


def agents_back(watch: Watch, without: frozenset[str]) -> Proof:
    expected = {one.agent for one in watch.expected} - without
    seen = watch.look()
    missing = sorted(expected - set(seen))
    kinds = Counter(seen[agent].partition(":")[0] for agent in expected & set(seen))
    by = ", ".join(f"{count} by {kind}" for kind, count in sorted(kinds.items()))
    evidence = f"{len(expected & set(seen))} of {len(expected)} agents logged in" + (f" ({by})" if by else "")
    return Proof(AGENTS, not missing, evidence + (f"; not yet: {', '.join(missing)}" if missing else ""))


CHECKS: dict[str, Callable[[Restored, Run], Proof]] = {
    "mongo-primary": mongo_primary,
    "jujud-active": jujud_active,
    "api-answers": api,
    "peergrouper-keeps-member": peergrouper_keeps_member,
}


def prove(one: Restored, names: Sequence[str], deadline_seconds: float, run: Run) -> list[Proof]:
    """Repeats each check until it holds or the common deadline ends."""
    end = time.monotonic() + deadline_seconds
    return [_wait(partial(CHECKS[name], one, run), end, POLL_SECONDS) for name in names]


def prove_agents(one: Restored, deadline_seconds: float, run: Run) -> tuple[Proof, dict[str, str]]:
    """Waits until every agent that should come back was seen, or the deadline ends.

    :returns: the proof, and by agent (TAG@MODEL-UUID) the evidence of its return.
    """
    end = time.monotonic() + deadline_seconds
    with controller_client(one.data_dir, one.mongo_common) as client:
        since = started_at(f"jujud-machine-{one.machine_id}", run)
        watch = Watch(client.juju, one.log_file, one.api_port, since)

        def check() -> Proof:
            try:
                return agents_back(watch, one.without)
            except PyMongoError as error:
                # The peergrouper may make the member step down for a moment.
                return Proof(AGENTS, False, f"the database does not answer: {error}")

        return _wait(check, end, AGENTS_POLL_SECONDS), watch.seen


def _wait(check: Callable[[], Proof], end: float, pause: float) -> Proof:
    proof = check()
    while not proof.ok and time.monotonic() < end:
        time.sleep(pause)
        proof = check()
    return proof


def _log_end(one: Restored, lines: int = 3) -> str:
    if not one.log_file.exists():
        return "no log"
    return " | ".join(one.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
