"""The journal of a restore: which run, which archive, which step began and ended, what is set aside where, what ran before.

One small JSON file on the host, replaced as a whole and on disk before work goes on, so that a run that was killed anywhere can
be taken up or undone. It holds no secret. Times are the host's own, and are never compared with another machine's.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Mapping

from .errors import JujuDrError
from .files import sync_folder, write_whole

FOLDER = Path("/var/lib/juju-dr")
NAME = "journal.json"
STEPS = (
    "upload",
    "stop-services",
    "set-aside",
    "place-files",
    "mongo-load",
    "rewrite-addresses",
    "interlock",
    "start-services",
    "prove",
)
RESTORING, RESTORED, ROLLING_BACK, ROLLED_BACK = "restoring", "restored", "rolling back", "rolled back"


@dataclass(frozen=True)
class Archive:
    """Which archive is restored; the digest tells."""

    path: str
    sha256: str
    controller_uuid: str
    machine_id: str


@dataclass
class Aside:
    """What is set aside, written down before anything is moved.

    :ivar moved: from and to of everything that is renamed.
    :ivar keys: each user's authorized_keys: ``path``, its copy ``kept``, whether it and its folder ``existed``, and ``placed``,
        the SHA-256 it will have with the archive's keys.
    :ivar absent: what a restore makes and was not there.
    :ivar times: access and modification time in nanoseconds of the folders in which something is renamed, by path.
    :ivar bytes: size of what is set aside.
    """

    moved: list[dict[str, str]]
    keys: list[dict[str, Any]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    times: dict[str, list[int]] = field(default_factory=dict)
    bytes: int = 0


@dataclass
class Journal:
    """A restore on this host.

    :ivar run: stamp of the run that began it; names the folder of the unpacked archive and what is set aside.
    :ivar runs: who worked on it, and since when.
    :ivar services: unit, and whether it ran, before anything was stopped; in the order to start them again.
    :ivar steps: by name: when it began and ended, and its result.
    :ivar started: whether jujud may have worked with what was placed; a step that is done again forgets that it began.
    :ivar failed: what an undone restore had placed and is kept beside, of this run or an earlier one.
    :ivar cause: why it was rolled back.
    """

    run: str
    archive: Archive
    address: str
    state: str = RESTORING
    runs: list[dict[str, str]] = field(default_factory=list)
    services: list[dict[str, Any]] = field(default_factory=list)
    aside: Aside | None = None
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    started: bool = False
    failed: list[str] = field(default_factory=list)
    cause: str = ""

    def began(self, step: str) -> bool:
        return step in self.steps

    def ended(self, step: str) -> bool:
        return "ended" in self.steps.get(step, {})

    @property
    def running_before(self) -> list[str]:
        return [str(one["unit"]) for one in self.services if one["active"]]


@dataclass(frozen=True)
class Decision:
    """What a restore of an archive means on this host now.

    :param verb: ``begin``, ``resume``, or ``restored`` when there is nothing to do.
    :param todo: the steps, in order.
    :param why: one sentence for the operator.
    """

    verb: str
    todo: tuple[str, ...]
    why: str


def read(folder: Path = FOLDER) -> Journal | None:
    """The journal of this host; None when there is none.

    :raises JujuDrError: it cannot be understood.
    """
    path = folder / NAME
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        aside = told.pop("aside")
        return Journal(**{**told, "archive": Archive(**told["archive"]), "aside": Aside(**aside) if aside else None})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JujuDrError(
            f"The journal {path} cannot be read: {error}",
            "It names what is set aside; look at it, put that back by hand, and remove the journal",
        ) from error


def write(journal: Journal, folder: Path = FOLDER) -> None:
    """Replaces the journal; it is on disk when this returns."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    write_whole(folder / NAME, json.dumps(asdict(journal), indent=1) + "\n")
    sync_folder(folder)


def remember(journal: Journal, folder: Path = FOLDER) -> Path:
    """Keeps a journal that is done with, for people only."""
    old = folder / f"journal-{journal.run}.json"
    write_whole(old, json.dumps(asdict(journal), indent=1) + "\n")
    return old


def decide(journal: Journal | None, archive: Archive, address: str = "") -> Decision:
    """What is to be done to restore the archive.

    A step that began and did not end is never trusted. Until the rewrite ended a restore starts over from what is set aside:
    a half loaded or half rewritten database cannot be told from a wrong one. Then it goes on, since jujud may have worked.

    :param address: the address that agents shall use; empty when it is not known yet.
    :raises JujuDrError: the host is amid the restore of another archive, of an undo, or has been restored from another archive.
    """
    if journal is None or journal.state == ROLLED_BACK:
        return Decision("begin", STEPS, "nothing was begun here")
    told = f"A restore of {journal.archive.path} (sha256 {journal.archive.sha256[:12]}…), begun by run {journal.run},"
    if journal.state == ROLLING_BACK:
        raise JujuDrError(f"{told} is being rolled back", "Run playbooks/rollback.yml again to its end first")
    same = journal.archive.sha256 == archive.sha256
    if journal.state == RESTORED:
        if same:
            return Decision("restored", (), f"already restored from this archive by run {journal.run}")
        raise JujuDrError(
            f"{told} ended well on this host, and this is another archive",
            "Run playbooks/rollback.yml to undo it, or playbooks/finalize.yml to keep it, first",
        )
    if not same:
        raise JujuDrError(
            f"{told} did not end, and this is another archive",
            "Run the restore with that archive again, or playbooks/rollback.yml first",
        )
    moved = bool(address) and address != journal.address
    if moved and journal.started:
        raise JujuDrError(
            f"{told} has started the controller at {journal.address} already",
            f"Restore to {journal.address}, or run playbooks/rollback.yml first",
        )
    last = next((step for step in reversed(STEPS) if journal.ended(step)), "nothing")
    todo = _todo(journal, moved)
    after = f"run {journal.run} was interrupted after {last}"
    return Decision("resume", todo, f"{after}; goes on with {todo[0]}" if todo else f"{after}; only the report is missing")


def _todo(journal: Journal, moved: bool) -> tuple[str, ...]:
    if not journal.ended("upload"):
        return STEPS
    if journal.ended("prove"):
        return ()
    if journal.ended("rewrite-addresses") and not moved:
        # jujud may have come up half-way: it is started anew.
        return ("stop-services", "interlock", "start-services", "prove")
    return STEPS[STEPS.index("stop-services") :]


def begin(
    journal: Journal | None, archive: Archive, address: str, run: str, who: str, services: list[dict[str, Any]]
) -> tuple[Journal, Decision]:
    """The journal of a restore that begins or goes on.

    :param run: stamp of this run; a restore that goes on keeps that of the run that began it.
    :param who: name of the run that holds the lock.
    :param services: what runs now; a restore that goes on keeps what ran at first.
    :raises JujuDrError: see :func:`decide`.
    """
    decision = decide(journal, archive, address)
    if journal is None or decision.verb == "begin":
        failed = journal.failed if journal else []
        journal = Journal(run, archive, address, services=services, failed=failed)
    journal.address = address
    journal.runs.append({"who": who, "began": now()})
    for step in decision.todo:
        journal.steps.pop(step, None)
    if decision.todo:
        _begin(journal, decision.todo[0])
    return journal, decision


def end_step(journal: Journal, step: str, result: Mapping[str, Any], todo: tuple[str, ...]) -> None:
    """Writes down that a step ended, and that the next one begins.

    :param todo: the steps of this run.
    """
    journal.steps[step].update(ended=now(), result=dict(result))
    rest = todo[todo.index(step) + 1 :]
    if rest:
        _begin(journal, rest[0])


def _begin(journal: Journal, step: str) -> None:
    journal.steps[step] = {"began": now()}
    journal.started = journal.started or step == "start-services"


def now() -> str:
    """This host's time, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
