"""The database at rest: juju-db stopped for a while, and running again afterwards, whatever happens to whoever stopped it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

from .controller_host import Run, machine_agent, start_unit
from .errors import JujuDrError
from .loading_server import ASIDE, CONFIG, SOCKET_FOLDER, loading_server
from .mongo import MongoAccess, access_from_agent_conf, connect
from .progress import FOLDER

if TYPE_CHECKING:
    from pymongo import MongoClient

BACK_SECONDS = 120
# Waits in the kernel until nobody holds the lock: a process that is killed no longer does. Starts as start_unit() does.
_PUT_BACK = f"""
if [ -e "$1/{ASIDE}" ]; then
    systemctl stop "$2"
    mv -f "$1/{ASIDE}" "$1/{CONFIG}"
    rm -rf "$1/{SOCKET_FOLDER}"
fi
systemctl reset-failed "$2"
systemctl start "$2"
"""


@contextlib.contextmanager
def at_rest(data_dir: str, mongo_common: str, service: str, run: Run) -> Iterator[MongoClient[dict[str, Any]]]:
    """Stops juju-db, yields a client of what lies on disk, and starts juju-db again whatever happens.

    :raises JujuDrError: nobody would start juju-db again if this process were killed; or juju-db does not come back.
    """
    access = access_from_agent_conf(machine_agent(data_dir).conf, mongo_common)
    with guarded(mongo_common, service, run):
        try:
            code, _, errors = run(["systemctl", "stop", service])
            if code:
                raise _disobedient(service, "stop", errors.strip())
            with loading_server(mongo_common, service, run) as client:
                yield client
        finally:
            code, errors = start_unit(run, service)
            if code:
                raise _disobedient(service, "start", errors)
            _wait_member(access)


@contextlib.contextmanager
def guarded(mongo_common: str, service: str, run: Run, folder: Path = FOLDER) -> Iterator[None]:
    """Has systemd put juju-db's configuration back and start it as soon as this process has ended without doing so.

    :raises JujuDrError: systemd does not take the guard; nothing was stopped.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock, unit = folder / "at-rest.lock", f"juju-dr-guard-{os.getpid()}.service"
    with open(os.open(lock, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as held:
        # Waits for the guard of a killed run, which may be at work.
        fcntl.flock(held, fcntl.LOCK_EX)
        command = ["flock", str(lock), "/bin/sh", "-c", _PUT_BACK, "sh", mongo_common, service]
        code, _, errors = run(["systemd-run", "--quiet", "--collect", f"--unit={unit}", *command])
        if code:
            raise JujuDrError(
                f"No guard could be set up that starts {service} again if this run is killed: {errors.strip()}",
                "Look at: systemctl status; juju-db was not stopped",
            )
        yield
        run(["systemctl", "stop", unit])


def _disobedient(service: str, verb: str, said: str) -> JujuDrError:
    return JujuDrError(f"{service} does not {verb}: {said}", f"Look at: systemctl status {service}")


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
