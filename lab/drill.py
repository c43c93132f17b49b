"""The whole story in one command: a lab controller is backed up, lost for good, restored elsewhere, and judged.

Usage: ``python -m lab.drill [--shape single-2.9] [--documents 20000]``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".lab" / "drill"
SPARE = {"single-2.9": ["--bare"], "ha-2.9": ["--bare"], "single-3.6": ["--bootstrapped", "3.6"]}


class PhaseFailed(Exception):
    """A command of the drill failed; the log says why."""


def run(phase: str, command: list[str], log: Path, timings: Path | None = None) -> float:
    """Runs one phase, its output into the log, and returns its seconds."""
    print(f"{phase} …", end=" ", flush=True)
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    if timings:
        environment["JUJU_DR_TIMINGS"] = str(timings)
    start = time.monotonic()
    with log.open("ab") as output:
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output, check=False).returncode
    seconds = time.monotonic() - start
    print(f"{seconds:.1f} s" if code == 0 else "FAILED", flush=True)
    if code:
        raise PhaseFailed(phase)
    return seconds


def newest(pattern: str) -> Path:
    return max(FOLDER.glob(pattern), key=lambda p: p.stat().st_mtime)


def report(phases: list[tuple[str, float]], plays: dict[str, list[dict[str, Any]]]) -> str:
    """The short report: phases, archive, what was rewritten, who is back."""
    backup = json.loads(newest("juju-backup-*.json").read_text(encoding="utf-8"))
    restore = json.loads(newest("restore-*.json").read_text(encoding="utf-8"))
    lines = [
        "",
        f"Controller {restore['controller_uuid']} of Juju {restore['version']} was lost and is back at {restore['address']}.",
    ]
    for phase, seconds in phases:
        lines.append(f"  {seconds:6.1f} s  {phase}")
        lines += [f"              {p['seconds']:5.1f} s  {p['phase']}" for p in plays.get(phase, []) if p["seconds"] >= 0.5]
    lines.append(f"  {sum(s for _, s in phases):6.1f} s  in all")
    lines.append(f"Archive:   {backup['archive']}, {backup['size'] / 2**20:.1f} MiB, {backup['documents']} documents")
    rules = ", ".join(f"{name} {count}" for name, count in sorted(restore["by_rule"].items()))
    lines.append(f"Rewritten: {restore['edits']} places ({rules})")
    for proof in restore["proofs"]:
        evidence = proof["evidence"]
        lines.append(f"Proof:     {proof['name']}: {evidence if isinstance(evidence, str) else json.dumps(evidence)}")
    for machine in restore["ledger"]:
        agents = ", ".join(str(a).split("@")[0] for a in machine["agents"])
        lines.append(f"Agents:    machine {machine['machine']} of model {machine['model']}: {machine['outcome']} ({agents})")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="single-2.9", choices=sorted(SPARE))
    parser.add_argument("--documents", type=int, default=20000)
    parser.add_argument("--keep", action="store_true", help="leave the lab running afterwards")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = FOLDER / "drill.log"
    log.unlink(missing_ok=True)
    python, playbook = sys.executable, str(Path(sys.executable).parent / "ansible-playbook")
    destination = ["--extra-vars", f"backup_dest={FOLDER}"]
    phases: list[tuple[str, float]] = []
    plays: dict[str, list[dict[str, Any]]] = {}

    def phase(name: str, command: list[str]) -> None:
        timings = FOLDER / "timings.json"
        timings.unlink(missing_ok=True)
        phases.append((name, run(name, command, log, timings)))
        if timings.exists():
            plays[name] = json.loads(timings.read_text(encoding="utf-8"))

    try:
        up = ["up", arguments.shape, "--documents", str(arguments.documents)]
        phase("start a lab controller", [python, "-m", "lab", *up])
        phase("plant what must come back", [python, "-m", "lab.judge", "plant"])
        phase("back it up", [playbook, "playbooks/backup.yml", *destination])
        archive = newest("juju-backup-*.tar.gz")
        phase("lose every controller machine", [python, "-m", "lab", "lose"])
        phase("let the cloud change meanwhile", [python, "-m", "lab.judge", "grow"])
        phase("prepare a new machine", [python, "-m", "lab", "spare", "n0", *SPARE[arguments.shape]])
        phase("restore", [playbook, "playbooks/restore.yml", "--extra-vars", f"archive={archive}", *destination])
        phase("judge from outside", [python, "-m", "lab.judge", "judge"])
        if not arguments.keep:
            phase("remove the lab", [python, "-m", "lab", "down"])
    except PhaseFailed:
        print("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]), file=sys.stderr)
        print(
            f"\nThe drill failed; the whole log is {log}. The lab is left as it is: make lab-down removes it.",
            file=sys.stderr,
        )
        return 1
    print(report(phases, plays))
    return 0


if __name__ == "__main__":
    sys.exit(main())
