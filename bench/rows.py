"""The measurements, one function for each line of the table."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from lab.drill import newest
from lab.mongod import Mongod

from . import rivals
from .figures import Growth, Row, number, ratios, spread
from .ground import HOST_FILES, ROOT, Client, Database, DiskUse, alternate, emptied, member, ours, standalone, timed, used

DELAY_SECONDS = 1.0
MIB = 2**20
GIVEN = "not on PATH, nor given by the variable"


@dataclass(frozen=True)
class Bench:
    """One database, and how it is measured.

    :param scratch: empty folder; what is in it may be deleted at any time.
    :param runs: of each measure, as many as fit into ``minutes``.
    :param probes: writes that are watched during hot backups.
    """

    binary: Mongod
    database: Database
    scratch: Path
    runs: int
    minutes: float
    probes: int

    def alternate(self, *measures: Callable[[], float]) -> list[list[float]]:
        return alternate(self.runs, self.minutes, *measures)

    @property
    def files(self) -> Path:
        """A folder that stands for the root of the controller's disk."""
        folder = self.scratch.parent / "files"
        if not folder.exists():
            with tarfile.open(HOST_FILES) as tar:
                tar.extractall(folder, filter="fully_trusted")
        return folder

    def backup(self, port: int, codec: str) -> dict[str, Any]:
        """A whole backup to an archive that was read back; what it took, and what both processes told."""
        folder = emptied(self.scratch)
        (folder / "dest").mkdir()
        with DiskUse(folder) as disk:
            made = ours("backup", port=port, dest=str(folder / "dest"), files=str(self.files), codec=codec)
        read = ours("verify", path=made.result["path"])
        return {
            "made": made.seconds,
            "verified": read.seconds,
            "seconds": made.seconds + read.seconds,
            "size": made.result["size"],
            "backup_mib": made.result["peak_mib"],
            "verify_mib": read.result["peak_mib"],
            "scratch": disk.most / made.result["size"],
        }


def dump_rows(bench: Bench, port: int) -> Iterator[Row]:
    """A raw dump into a folder."""
    what, goal = "raw dump, against mongodump -j4", ">= 1.2x"
    peaks: list[float] = []

    def our_own() -> float:
        done = ours("dump", port=port, dest=str(emptied(bench.scratch) / "dump"), mode="hot")
        peaks.append(done.result["peak_mib"])
        return done.seconds

    if rivals.tool("mongodump"):
        mine, theirs = bench.alternate(
            our_own, lambda: rivals.mongodump(port, emptied(bench.scratch) / "dump", "--numParallelCollections=4")
        )
        yield Row(what, goal, spread(mine), spread(theirs), ratios(theirs, mine), at_least=1.2)
    else:
        yield Row(what, goal, spread(bench.alternate(our_own)[0]), note=f"mongodump is {GIVEN} MONGODUMP")
    yield Row("peak memory of a dump", "<= 128 MiB", spread(peaks), unit="MiB", met=max(peaks) <= 128)


def backup_rows(bench: Bench, port: int, codecs: dict[str, float]) -> Iterator[Row]:
    """Whole backups to a verified archive, as each codec makes it.

    :param codecs: name and the ratio that is the goal.
    """
    sizes: list[int] = []
    told: dict[str, list[dict[str, Any]]] = {codec: [] for codec in codecs}

    def theirs() -> float:
        seconds, size = rivals.jujus_way(port, emptied(bench.scratch))
        sizes.append(size)
        return seconds

    def made(codec: str) -> Callable[[], float]:
        def one() -> float:
            told[codec].append(bench.backup(port, codec))
            return float(told[codec][-1]["seconds"])

        return one

    their_seconds, *our_seconds = bench.alternate(theirs, *(made(codec) for codec in codecs))
    by = "mongodump" if rivals.tool("mongodump") else "our own dump, as mongodump is not here"
    for codec, seconds in zip(codecs, our_seconds, strict=True):
        size = told[codec][0]["size"] / sizes[0] - 1
        yield Row(
            f"backup to a verified archive ({codec}), against Juju's way",
            f">= {codecs[codec]:g}x" + (", size within 3 %" if codec == "gzip" else ""),
            spread(seconds),
            spread(their_seconds),
            ratios(their_seconds, seconds),
            at_least=codecs[codec],
            note=f"the archive is {size:+.1%} of theirs; Juju's way dumps with {by} and reads nothing back; "
            f"reading back takes {number(spread([one['verified'] for one in told[codec]]).median)} s of ours",
        )
    every = [one for codec in codecs for one in told[codec]]
    for name, key in (("a backup", "backup_mib"), ("verifying", "verify_mib")):
        peaks = [float(one[key]) for one in every]
        yield Row(f"peak memory of {name}", "<= 128 MiB", spread(peaks), unit="MiB", met=max(peaks) <= 128)
    most = [float(one["scratch"]) for one in every]
    yield Row(
        "disk in use during a backup, of the archive's size",
        "<= 1.05x",
        spread(most),
        unit="x",
        met=max(most) <= 1.05,
        note="without what the host's own files and database take",
    )


def load_rows(bench: Bench) -> Iterator[Row]:
    """Loads of the dump into servers that are empty each time."""
    dump = bench.database.dump
    peaks: list[float] = []

    def our_own() -> float:
        with standalone(bench.binary, emptied(bench.scratch) / "db", "--nojournal") as server:
            done = ours("load", port=server.port, source=str(dump))
        peaks.append(done.result["peak_mib"])
        return done.seconds

    def into_member(way: Callable[[int, Client], float]) -> Callable[[], float]:
        def one() -> float:
            with member(bench.binary, emptied(bench.scratch) / "db") as server:
                return way(server.port, server.client)

        return one

    flags = rivals.JUJU_RESTORE_FLAGS
    loop = into_member(lambda _, client: rivals.plain_loop(client, dump))
    strict = into_member(lambda port, _: rivals.mongorestore(port, dump / "dump", *flags))
    usual = into_member(lambda port, _: rivals.mongorestore(port, dump / "dump"))
    against = [
        ("load, against mongorestore with juju-restore's flags", 3.0, strict),
        ("load, against mongorestore's defaults", 1.5, usual),
    ]
    here = bool(rivals.tool("mongorestore"))
    mine, by_loop, *by_tool = bench.alternate(our_own, loop, *([strict, usual] if here else []))
    for place, (what, goal, _) in enumerate(against):
        if here:
            ratio = ratios(by_tool[place], mine)
            yield Row(what, f">= {goal:g}x", spread(mine), spread(by_tool[place]), ratio, at_least=goal)
        else:
            yield Row(what, f">= {goal:g}x", spread(mine), note=f"mongorestore is {GIVEN} MONGORESTORE")
    yield Row(
        "load, against a plain loop of what these flags mean",
        "",
        spread(mine),
        spread(by_loop),
        ratios(by_loop, mine),
        note="pymongo, one worker, batches of 1000 in order, acknowledged by a majority; a stand-in, not mongorestore",
    )
    yield Row("peak memory of a load", "<= 128 MiB", spread(peaks), unit="MiB", met=max(peaks) <= 128)


def pause_row(bench: Bench, port: int, client: Client) -> Row:
    """Writes while hot backups run one after the other."""
    # As Juju's own: a majority has it, in the journal.
    probes = client.bench.get_collection("probes", write_concern=WriteConcern("majority", j=True))
    took: list[float] = []
    failed: list[str] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            began = time.monotonic()
            try:
                probes.insert_one({"_id": len(took) + len(failed)})
                took.append(time.monotonic() - began)
            except PyMongoError as error:
                failed.append(str(error))

    thread = threading.Thread(target=write)
    thread.start()
    backups = 0
    try:
        while len(took) + len(failed) < bench.probes:
            bench.backup(port, "gzip")
            backups += 1
    finally:
        stop.set()
        thread.join()
        client.drop_database("bench")
    late = sum(1 for one in took if one > DELAY_SECONDS)
    return Row(
        "writes failed or delayed > 1 s in hot backups",
        f"0 of {bench.probes:,}",
        spread([late + len(failed)]),
        unit="writes",
        met=not late and not failed,
        note=f"{len(took) + len(failed):,} writes during {backups} backups; the slowest took {max(took) * 1000:.0f} ms, "
        f"half of them under {spread(took).median * 1000:.1f} ms",
    )


def transfer_row(bench: Bench, port: int) -> Row:
    """A second backup of a database at rest, fetched to where the first one is kept."""
    from ansible.module_utils.juju_dr.transfer import cuts_of, plan, segments

    kept, fresh = bench.scratch.parent / "kept", bench.scratch / "fresh"
    archives = []
    for folder in (emptied(kept), fresh):
        emptied(bench.scratch)
        folder.mkdir(exist_ok=True)
        made = ours("backup", port=port, dest=str(folder), files=str(bench.files), codec="gzip")
        archives.append(Path(made.result["path"]))
    before, after = (segments(path, cuts_of(path)) for path in archives)
    fetched = sum(step.length for step in plan(after, before) if not step.here)
    size = archives[1].stat().st_size
    emptied(kept).rmdir()
    return Row(
        "transfer of an unchanged backup, of the archive's size",
        "what changed",
        spread([100 * fetched / size]),
        unit="%",
        met=fetched <= 0.05 * size,
        note=f"{fetched:,} of {size:,} bytes; counted from both archives' members, nothing is sent",
    )


def machines_table(counts: list[int]) -> Growth:
    """Re-pointing of so many machines, which are folders of this one behind a script that stands for ssh."""
    growth = Growth("machines to re-point", ["machines", "s", "ms a machine", "own processor, s", "peak memory, MiB"])
    for count in counts:
        told = timed([sys.executable, "-m", "lab.farm", str(count)]).result
        own, memory = told["own"], round(told["memory"] / MIB, 1)
        growth.lines.append([f"{count:,}", told["seconds"], round(1000 * told["seconds"] / count, 1), own, memory])
    return growth


def restore_row(runs: int, minutes: float) -> Row:
    """Whole restores of a small database on the lab's hosts; what is not the load is overhead."""
    what, goal = "restore overhead beyond moving the data", "<= 30 s"
    loads: list[float] = []

    def overhead() -> float:
        done = subprocess.run([sys.executable, "-m", "lab.drill"], cwd=ROOT, capture_output=True, text=True, check=False)
        found = re.search(r"([\d.]+) s  restore$", done.stdout, re.MULTILINE)
        if done.returncode or not found:
            raise RuntimeError(f"the lab's drill did not end well: {(done.stderr or done.stdout).strip()[-200:]}")
        loads.append(float(json.loads(newest("restore-*.json").read_text(encoding="utf-8"))["load_seconds"]))
        return float(found[1]) - loads[-1]

    try:
        seconds = spread(alternate(runs, minutes, overhead)[0])
    except RuntimeError as error:
        return Row(what, goal, note=str(error))
    note = f"two hosts, 20,000 documents; all but the load itself, which took {spread(loads)} s"
    return Row(what, goal, seconds, met=seconds.median <= 30, note=note)


@contextmanager
def served(bench: Bench) -> Iterator[tuple[int, Client]]:
    """The grown database, in a replica set of one."""
    with member(bench.binary, bench.database.dbpath) as server:
        yield server.port, server.client


def growth_line(bench: Bench, port: int, codecs: list[str]) -> list[float | str]:
    """Time and memory of each step, once, for the table of growth."""
    folder = emptied(bench.scratch)
    dumped = ours("dump", port=port, dest=str(folder / "dump"), mode="hot")
    backups = [bench.backup(port, codec) for codec in codecs]
    with standalone(bench.binary, emptied(bench.scratch) / "db", "--nojournal") as server:
        loaded = ours("load", port=server.port, source=str(bench.database.dump))
    emptied(bench.scratch)
    return [
        f"{bench.database.gigabytes:g} GB",
        f"{bench.database.documents:,}",
        f"{bench.database.bytes / 10**9:.2f}",
        round(dumped.seconds, 1),
        *(round(one["made"], 1) for one in backups),
        round(backups[0]["verified"], 1),
        round(loaded.seconds, 1),
        dumped.result["peak_mib"],
        max(one["backup_mib"] for one in backups),
        max(one["verify_mib"] for one in backups),
        loaded.result["peak_mib"],
    ]


def growth_table(codecs: list[str]) -> Growth:
    """The columns that :func:`growth_line` fills."""
    made = [f"backup {codec}, s" for codec in codecs]
    peaks = [f"{name}, MiB" for name in ("dump", "backup", "verify", "load")]
    return Growth("a database", ["size", "documents", "10^9 bytes", "dump, s", *made, "verify, s", "load, s", *peaks])


def memory_row(growth: Growth) -> Row | None:
    """How much the peaks grow from the smallest to the largest database."""
    if len(growth.lines) < 2:
        return None
    first, last = growth.lines[0], growth.lines[-1]
    grown = [float(after) / float(before) - 1 for before, after in zip(first[-4:], last[-4:], strict=True)]
    names = [column.partition(",")[0] for column in growth.columns[-4:]]
    return Row(
        "growth of peak memory",
        "<= 5 %",
        spread([max(grown) * 100]),
        unit="%",
        met=max(grown) <= 0.05,
        note=f"from {first[1]} to {last[1]} documents: "
        + ", ".join(f"{name} {one:+.1%}" for name, one in zip(names, grown, strict=True)),
    )


def freed(bench: Bench) -> int:
    """Bytes of the database that are deleted now that it is measured."""
    folder = bench.database.dbpath.parent
    size = used(folder)
    emptied(folder).rmdir()
    return size
