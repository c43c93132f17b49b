"""Documentation that several modules share: where Juju is on a host, and how a long run is watched."""

from __future__ import annotations


class ModuleDocFragment:
    DATA_DIR = r"""
options:
  data_dir:
    description: Juju's data folder.
    type: path
    default: /var/lib/juju
"""
    MONGO_COMMON = r"""
options:
  mongo_common:
    description: The juju-db snap's common folder.
    type: path
    default: /var/snap/juju-db/common
"""
    LOG_DIR = r"""
options:
  log_dir:
    description: Juju's log folder.
    type: path
    default: /var/log/juju
"""
    SERVICE = r"""
options:
  service:
    description: Systemd unit that runs juju-db.
    type: str
    default: snap.juju-db.daemon
"""
    PROGRESS = r"""
options:
  progress:
    description:
      - File that tells how far the run is, ending in C(.json), given by the action of the same name; it is gone afterwards.
      - A run that is watched so ends itself when nobody asks for it any more.
    type: path
    default: ""
"""
    LEDGER_FOLDER = r"""
options:
  ledger_folder:
    description: Folder on the controller that holds the ledger of re-pointing.
    type: path
    default: /var/lib/juju-dr
"""
