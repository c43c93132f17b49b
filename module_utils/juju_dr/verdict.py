"""The verdict over an archive: one type, and one list of causes for which one is refused, each with its cure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping

from .errors import JujuDrError
from .progress import SILENT, Progress

if TYPE_CHECKING:
    from .archive_tar import Limits

AGAIN = "Fetch it again, or take another archive"
NEVER = "Do not use this archive"
LIMITS = "If it is yours and that large, raise verify_archive_max_bytes, _ratio or _files; otherwise do not use this archive"
# What archives' names end in.
ENDINGS = (".tar.gz", ".tgz", ".tar.zst", ".age")

# Cause: what it means, and what to do. Never renamed: reports and other programs keep them.
CAUSES: Mapping[str, tuple[str, str]] = {
    "not-found": ("nothing is at this path", "Check the path; it is looked up on the control machine"),
    "is-folder": ("the path is a folder", "Name the archive itself, juju-backup-….tar.gz"),
    "unreadable": ("the file cannot be read", "Check its permissions and the disk it is on"),
    "no-archive": ("it is no archive at all", "Name a juju-backup-….tar.gz"),
    "cut": ("its end is missing", AGAIN),
    "damaged": ("a checksum or the structure is wrong", AGAIN),
    "digest": ("it is not what the digest beside it says", AGAIN),
    "trailer": ("the end that vouches for all before it is missing", AGAIN),
    "manifest": ("its content is not what its manifest says", AGAIN),
    "documents": ("a collection is not whole documents end to end", AGAIN),
    "unknown-format": ("a newer juju-dr made it", "Use the juju-dr that made it, or a newer one"),
    "no-backup": ("it is no backup of a Juju controller that is known, or contradicts itself", AGAIN),
    "other-controller": ("it is of another controller", "Name the right archive, or the right expected_controller_uuid"),
    "changed": ("it is not the archive that was verified", "Run the restore again"),
    "unsafe-name": ("a name leads out of its tree", NEVER),
    "unsafe-link": ("a link leads out of its tree", NEVER),
    "unsafe-path": ("a path goes through a link or a file", NEVER),
    "unsafe-kind": ("something is neither file, folder nor link", NEVER),
    "set-id": ("a file would run with its owner's rights", NEVER),
    "duplicate": ("a name is there twice", NEVER),
    "long-name": ("a name is longer than a host can have", NEVER),
    "sparse": ("a file has holes, which hide its size", NEVER),
    "too-large": ("it unpacks to more than is allowed", LIMITS),
    "bomb": ("it unpacks to far more than its size can mean", LIMITS),
    "no-room": ("there is not enough room to unpack it", "Make room there"),
    "exists": ("the folder to unpack into is there already", "Name a folder that does not exist"),
    "no-zstd": ("the library for zstd is not installed", "Install python3-zstandard (pip install zstandard)"),
    "age-missing": ("age is not installed", "Install it, on Debian and Ubuntu: apt install age"),
    "age-failed": ("age failed", "See what age says"),
    "no-identity": ("it is encrypted, and no identity was given", "Name the secret key's file: -e identity=PATH"),
    "bad-identity": ("the identity cannot be used", "Name the secret key's file, of mode 0600"),
    "wrong-identity": ("it was not encrypted to this identity", "Name the secret key of one of its recipients"),
    "unexpected": ("it could not be judged", "Do not use this archive; report the message with the archive's origin"),
}


class Refused(JujuDrError):
    """An archive that must not be used.

    :param code: one of :data:`CAUSES`.
    :param cure: only where it differs from that of the cause.
    """

    def __init__(self, code: str, problem: str, cure: str = "") -> None:
        super().__init__(problem, cure or CAUSES[code][1])
        self.code = code


@dataclass(frozen=True)
class Verdict:
    """What is known of an archive.

    :param code: why it is refused, one of :data:`CAUSES`; empty when it may be used.
    :param cause: the same in one sentence with its cure.
    :param unproven: what its format could not prove, one sentence each.
    :param info: as :class:`.archive.ArchiveInfo`; empty when refused.
    """

    path: str
    ok: bool
    code: str = ""
    cause: str = ""
    unproven: list[str] = field(default_factory=list)
    info: Mapping[str, Any] = field(default_factory=dict)


def judge(
    path: str,
    identity: str = "",
    expected_controller_uuid: str = "",
    limits: Limits | None = None,
    progress: Progress = SILENT,
) -> Verdict:
    """Reads an archive to its last byte and says whether it may be used; never raises.

    :param identity: path of the secret key for an encrypted one.
    :param limits: :class:`.archive_tar.Limits`; None for the defaults.
    """
    # The reader raises what is defined here.
    from .archive import inspect
    from .archive_tar import LIMITS

    try:
        info = inspect(
            path,
            identity=identity,
            expected_controller_uuid=expected_controller_uuid,
            limits=limits or LIMITS,
            progress=progress,
        )
    except Refused as error:
        return Verdict(path, False, error.code, str(error))
    except Exception as error:  # noqa: BLE001
        refused = Refused("unexpected", f"{path} could not be judged: {type(error).__name__}: {error}")
        return Verdict(path, False, refused.code, str(refused))
    return Verdict(path, True, unproven=info.unproven, info=asdict(info))


def archives_at(path: str) -> list[str]:
    """The archive, or all archives of a folder by their names' endings, oldest name first.

    :raises Refused: the folder holds none.
    """
    folder = Path(path)
    if not folder.is_dir():
        return [path]
    found = sorted(str(one) for one in folder.iterdir() if one.name.endswith(ENDINGS) and not one.name.startswith("."))
    if not found:
        raise Refused("not-found", f"{path} holds no archive: no name ends in {', '.join(ENDINGS)}")
    return found
