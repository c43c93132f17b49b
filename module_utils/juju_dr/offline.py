"""A dump with juju-db stopped, and juju-db running again afterwards, whatever happens to the dump."""

from __future__ import annotations

import time

from .controller_host import Run, machine_agent
from .dump import DumpReport, Sink, dump
from .errors import JujuDrError
from .loading_server import loading_server
from .mongo import MongoAccess, access_from_agent_conf, connect
from .progress import SILENT, Progress

BACK_SECONDS = 120


def dump_offline(
    sink: Sink, data_dir: str, mongo_common: str, service: str, run: Run, progress: Progress = SILENT
) -> DumpReport:
    """Stops juju-db, dumps what lies on disk, and starts juju-db again whatever happens.

    :raises JujuDrError: the dump failed, or juju-db does not come back; juju-db was started again in every case.
    """
    access = access_from_agent_conf(machine_agent(data_dir).conf, mongo_common)
    try:
        _systemctl(run, "stop", service)
        with loading_server(mongo_common, service, run) as client:
            return dump(client, sink, "offline", progress)
    finally:
        _systemctl(run, "start", service)
        _wait_member(access)


def _systemctl(run: Run, verb: str, service: str) -> None:
    code, _, errors = run(["systemctl", verb, service])
    if code:
        raise JujuDrError(f"{service} does not {verb}: {errors.strip()}", f"Look at: systemctl status {service}")


def _wait_member(access: MongoAccess) -> None:
    """Until the member serves again: jujud and the other members rely on it."""
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        try:
            with connect(access, timeout_seconds=2.0) as client:
                hello = client.admin.command("isMaster")
                if hello.get("ismaster") or hello.get("secondary"):
                    return
        except JujuDrError:
            pass
        if time.monotonic() > deadline:
            raise JujuDrError(
                f"juju-db was started after the dump, but is no PRIMARY or SECONDARY after {BACK_SECONDS} s",
                "Look at mongod's log on that host",
            )
        time.sleep(0.2)
