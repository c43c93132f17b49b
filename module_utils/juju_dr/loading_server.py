"""juju-db run for loading: the same unit, without replication, authentication and network.

The snap confines mongod, so the binary is never called by hand: the unit is started with another configuration, which is put
back whatever happens. The server listens on a unix socket in a folder that only root enters.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

from .controller_host import Run, start_unit
from .errors import JujuDrError
from .files import write_whole
from .mongo import MongoAccess, connect

if TYPE_CHECKING:
    from pymongo import MongoClient

CONFIG = "juju-db.config"
ASIDE = CONFIG + ".juju-dr-aside"
SOCKET_FOLDER = "juju-dr-socket"
START_SECONDS = 120
# mongod ends before the last byte is taken: it writes its files in large pieces.
FULL = 32 * 2**20
# A path longer than this does not fit into a socket's address.
SOCKET_PATH_LIMIT = 107
_DROPPED = ("replset", "keyfile", "auth", "tls", "ssl", "bind_ip", "ipv6", "oplogsize", "port")


def loading_config(text: str, socket: Path, journal: bool = True) -> str:
    """The configuration for loading, made from the real one; both are ``key = value`` lines.

    :param journal: False for a database that is worth nothing until it is whole: nothing is written twice.
    """
    dropped = _DROPPED if journal else (*_DROPPED, "journal", "nojournal")
    kept = [
        line
        for line in text.splitlines()
        if "=" in line and not line.lstrip().startswith("#") and not line.strip().lower().startswith(dropped)
    ]
    return "\n".join(
        [
            "# Written by juju-dr for one load; the real file lies beside.",
            *kept,
            f"bind_ip = {socket}",
            f"unixSocketPrefix = {socket.parent}",
            "filePermissions = 0700",
            "port = 37017",
            # Time to live must not eat documents while they are loaded.
            "setParameter = ttlMonitorEnabled=false",
            "setParameter = disableLogicalSessionCacheRefresh=true",
            *([] if journal else ["nojournal = true"]),
            "",
        ]
    )


def heal(mongo_common: Path) -> None:
    """Puts the real configuration back after a run that was killed."""
    if (mongo_common / ASIDE).exists():
        (mongo_common / ASIDE).replace(mongo_common / CONFIG)
    shutil.rmtree(mongo_common / SOCKET_FOLDER, ignore_errors=True)


@contextlib.contextmanager
def loading_server(mongo_common: str, service: str, run: Run, journal: bool = True) -> Iterator[MongoClient[dict[str, Any]]]:
    """Runs juju-db for loading and yields a client of it; afterwards it is stopped and its configuration is the real one.

    :param run: runs a command and returns code, output, errors.
    :param journal: False for an empty database that a failed load leaves to be thrown away.
    :raises JujuDrError: no configuration, or the server does not come up; the cause is the end of mongod's own log.
    """
    # Not above: heal() is called where pymongo may be missing.
    from pymongo import errors as pymongo_errors

    common = Path(mongo_common)
    heal(common)
    config, socket = common / CONFIG, common / SOCKET_FOLDER / "load.sock"
    if not config.exists():
        raise JujuDrError(f"{config} is missing", "Install juju-db, or restore from an archive that has this file")
    if len(str(socket)) > SOCKET_PATH_LIMIT:
        raise JujuDrError(f"The path {socket} is too long for a unix socket", "Use a shorter mongo_common")
    real = config.read_text(encoding="utf-8")
    socket.parent.mkdir(mode=0o700)
    config.replace(common / ASIDE)
    write_whole(config, loading_config(real, socket, journal))
    try:
        code, said = start_unit(run, service)
        if code:
            raise JujuDrError(f"{service} does not start for loading: {said}", f"Look at: systemctl status {service}")
        client = wait_for(
            MongoAccess(socket_path=str(socket)), real, f"Look at: journalctl -u {service}", lambda: not _failed(run, service)
        )
        with client:
            yield client
            # Without a journal the checkpoint is all there is. It must not have to fit into the time that systemd gives a stop.
            client.admin.command("fsync")
    except (JujuDrError, pymongo_errors.PyMongoError) as error:
        refuse_full(common, str(error))
        raise
    finally:
        run(["systemctl", "stop", service])
        heal(common)


def refuse_full(folder: Path, seen: str) -> None:
    """Names a full disk, of which a server that ends says nothing to its clients.

    :param seen: what the client saw.
    :raises JujuDrError: there is hardly any room.
    """
    free = shutil.disk_usage(folder).free
    if free < FULL:
        raise JujuDrError(
            f"The disk that holds {folder}/db is full ({free // 2**10} KiB are free), so juju-db ended: {seen.rstrip('.')}",
            "Make room there, then run this again",
        )


def log_tail(config: str, lines: int = 5) -> str:
    """The end of the log that a configuration names."""
    paths = [line.partition("=")[2].strip() for line in config.splitlines() if line.strip().startswith("logpath")]
    try:
        with open(paths[0], "rb") as log:
            log.seek(max(0, os.path.getsize(paths[0]) - 4096))
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:])
    except (IndexError, OSError):
        return "no log"


def _failed(run: Run, service: str) -> bool:
    """Whether systemd has given the unit up; one that it is about to start again counts as living."""
    return run(["systemctl", "show", "--property=ActiveState", "--value", service])[1].strip() == "failed"


def wait_for(
    access: MongoAccess, config: str, look: str, lives: Callable[[], bool] = lambda: True
) -> MongoClient[dict[str, Any]]:
    """A client of a server that is starting.

    :param config: its configuration, which names its log.
    :param look: where to look when it does not come up.
    :param lives: False once it has ended.
    :raises JujuDrError: it ended, or does not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        alive = lives()
        try:
            return connect(access, timeout_seconds=2.0)
        except JujuDrError as error:
            if not alive or time.monotonic() > deadline:
                seen = f"did not answer within {START_SECONDS} s" if alive else "ended"
                raise JujuDrError(f"mongod {seen} for loading; its log ends: {log_tail(config)}", look) from error
            time.sleep(0.1)
