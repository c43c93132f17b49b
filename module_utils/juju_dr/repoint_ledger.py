"""The ledger of re-pointing: kept on the controller as JSON and as a table, so that the next run does only the rest."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Mapping, Sequence

from .files import write_whole
from .repoint import Entry, Machine

COLUMNS = ("MODEL", "MACHINE", "ADDRESS", "OUTCOME", "SEEN", "REMARK")


@dataclass(frozen=True)
class Ledger:
    """What is known of every machine.

    :param addresses: API addresses that the machines were pointed at; for others, nothing of it counts.
    :param lost_controllers: machine ids of controllers that do not come back.
    """

    controller_uuid: str
    addresses: tuple[str, ...]
    lost_controllers: tuple[str, ...] = ()
    machines: tuple[Entry, ...] = field(default_factory=tuple)

    def fits(self, controller_uuid: str, addresses: Sequence[str]) -> bool:
        return (self.controller_uuid, set(self.addresses)) == (controller_uuid, set(addresses))


def _json(folder: Path) -> Path:
    return folder / "repoint-ledger.json"


def _journal(folder: Path) -> Path:
    return folder / "repoint-journal.jsonl"


def read(folder: Path) -> Ledger | None:
    """The ledger, with what a run that was ended since had done; None when there is none that can be read."""
    try:
        told = json.loads(_json(folder).read_text(encoding="utf-8"))
        entries = {(one["model_uuid"], one["machine"]): Entry(**one) for one in told["machines"]}
        ledger = Ledger(told["controller_uuid"], tuple(told["addresses"]), tuple(told["lost_controllers"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    for entry in _journalled(folder):
        entries[entry.model_uuid, entry.machine] = entry
    return replace(ledger, machines=tuple(entries.values()))


def _journalled(folder: Path) -> list[Entry]:
    try:
        lines = _journal(folder).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            # The line at which a run was ended.
            continue
    return found


def write(folder: Path, ledger: Ledger) -> None:
    """Keeps the ledger, whole or not at all; the journal of the run is in it from now on."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    told: dict[str, Any] = {**asdict(ledger), "machines": [asdict(one) for one in ledger.machines]}
    write_whole(_json(folder), json.dumps(told, indent=1) + "\n")
    write_whole(folder / "repoint-ledger.txt", "\n".join(table(ledger.machines)) + "\n")
    _journal(folder).unlink(missing_ok=True)


def journal(folder: Path) -> IO[str]:
    """The file to which each entry is noted as soon as it is known; a run that is ended loses none."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    return open(os.open(_journal(folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8", buffering=1)


def with_seen(machines: Sequence[Entry], seen: Mapping[str, str]) -> list[Entry]:
    """The entries with the evidence of each agent's login; what was seen once stays seen."""
    return [
        replace(one, seen={**one.seen, **{agent: seen[agent] for agent in one.agents if seen.get(agent)}}) for one in machines
    ]


def table(machines: Sequence[Entry]) -> list[str]:
    """The ledger as lines to read, what needs a hand first."""
    order = {"refused": 0, "unreachable": 1, "done": 2, "unchanged": 2}
    rows = [COLUMNS]
    for one in sorted(machines, key=lambda one: (one.whole, order[one.outcome], one.model, one.machine)):
        missing = [agent.partition("@")[0] for agent in one.agents if agent not in one.seen]
        absent = f"not seen: {', '.join(missing)}" if missing and one.outcome in ("done", "unchanged") else ""
        remark = "; ".join(part for part in (one.reason, one.warning, absent) if part)
        count = f"{len(set(one.agents) & set(one.seen))}/{len(one.agents)}"
        rows.append((one.model, one.machine, one.address, one.outcome, count, remark))
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS) - 1)] + [0]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def rest(machines: Sequence[Machine], ledger: Ledger | None, seen: Mapping[str, str]) -> tuple[list[Machine], list[Entry]]:
    """What is left to do: machines that must be told, and the entries of those for which nothing is left.

    :param seen: evidence of agents that are back by now.
    """
    known = {(one.model_uuid, one.machine): one for one in with_seen(ledger.machines if ledger else (), seen)}
    left, kept = [], []
    for machine in machines:
        entry = known.get((machine.model_uuid, machine.machine))
        # Units that were deployed since count, too.
        if entry and replace(entry, agents=sorted({*entry.agents, *machine.agents})).whole:
            kept.append(entry)
        else:
            left.append(machine)
    return left, kept


def merged(ledger: Ledger, entries: Sequence[Entry], seen: Mapping[str, str]) -> Ledger:
    """The ledger with newer entries in place of older ones, and with more evidence."""
    machines = {(one.model_uuid, one.machine): one for one in [*ledger.machines, *entries]}
    return replace(ledger, machines=tuple(with_seen(list(machines.values()), seen)))
