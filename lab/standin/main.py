"""``jujud machine --data-dir D --machine-id N --debug``, as the unit's script calls it."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

from lab.standin.agent import run_workload
from lab.standin.common import log, read_conf
from lab.standin.controller import run_controller


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="jujud")
    parser.add_argument("command", choices=["machine"])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--machine-id", required=True)
    parser.add_argument("--debug", action="store_true")
    options = parser.parse_args(arguments)
    # Setting STOP here could wait for a lock that the interrupted main thread holds.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    log("INFO", "juju.cmd", "running jujud [the lab's stand-in, not Juju]")
    conf = read_conf(options.data_dir / "agents" / f"machine-{options.machine_id.replace('/', '-')}" / "agent.conf")
    run = run_controller if conf.scalar("controllerkey") else run_workload
    return run(options.data_dir, options.machine_id)
