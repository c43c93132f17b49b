"""Measures everything in one run and writes it into bench/results: ``make bench``, or ``python -m bench``.

The variables that it heeds are listed in bench/README.md.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from lab.mongod import ensure

from . import report, rows
from .figures import Result, Row
from .ground import ROOT, machine, make_database

ALL = "pause dump backup transfer load restore machines growth"
# Which archives are made, and how many times faster than Juju's way is the goal.
CODECS = {"gzip": 6.0, "zstd": 10.0}


def main() -> int:
    setting = os.environ.get
    sizes = sorted(float(size) for size in setting("SIZES", "0.1 1").split())
    at = [float(size) for size in setting("AT", "").split()] or sizes[-1:]
    runs, minutes, probes = int(setting("RUNS", "5")), float(setting("MINUTES", "20")), int(setting("PROBES", "10000"))
    wanted = setting("ROWS", ALL).split()
    unknown = (set(wanted) - set(ALL.split())) | {f"{size:g} GB" for size in set(at) - set(sizes)}
    if unknown or not sizes:
        print(f"There are the rows {ALL}, at some of the SIZES; not {' '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    # Ended from outside, it still stops its servers and removes its databases.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    result = Result({**machine(), "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC", "runs": runs, "sizes": sizes})
    out = Path(setting("OUT", str(ROOT / "bench" / "results")))
    binary = ensure()
    growth = rows.growth_table(list(CODECS))

    def told(row: Row, of: str = "") -> None:
        row.what += of
        result.rows.append(row)
        # Of a run of an hour that is ended, what was measured stays.
        report.write(result, out)
        print(
            f"{row.what}: {row.ours or '-'} {row.unit}" + (f", {row.ratio}x" if row.ratio else "") + f"  {row.note}", flush=True
        )

    if "restore" in wanted:
        told(rows.restore_row(runs, minutes))
    if "machines" in wanted:
        result.growths.append(rows.machines_table([int(count) for count in setting("MACHINES", "10 100 1000").split()]))
    if "growth" in wanted:
        result.growths.append(growth)
    with tempfile.TemporaryDirectory(prefix="juju-dr-bench-", dir=setting("TMPDIR", None)) as name:
        for size in sizes:
            folder = Path(name)
            print(f"growing a database of {size:g} GB …", flush=True)
            database = make_database(binary, folder / f"{size:g}", size)
            bench = rows.Bench(binary, database, folder / "scratch", runs, minutes, probes)
            of = f", {size:g} GB" if len(at) > 1 else ""
            with rows.served(bench) as (port, client):
                if "growth" in wanted:
                    growth.lines.append(rows.growth_line(bench, port, list(CODECS)))
                if size in at:
                    if "pause" in wanted:
                        told(rows.pause_row(bench, port, client), of)
                    for row in rows.dump_rows(bench, port) if "dump" in wanted else ():
                        told(row, of)
                    for row in rows.backup_rows(bench, port, CODECS) if "backup" in wanted else ():
                        told(row, of)
                    if "transfer" in wanted:
                        told(rows.transfer_row(bench, port), of)
            if size in at and "load" in wanted:
                for row in rows.load_rows(bench):
                    told(row, of)
            rows.freed(bench)
    grown = rows.memory_row(growth)
    if grown:
        told(grown)
    report.write(result, out)
    print(f"\n{report.tables(result)}\nWritten to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
