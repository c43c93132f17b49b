"""Arguments that several modules share; what they mean stands in doc_fragments/juju_host.py."""

from __future__ import annotations

DATA_DIR = {"type": "path", "default": "/var/lib/juju"}
MONGO_COMMON = {"type": "path", "default": "/var/snap/juju-db/common"}
LOG_DIR = {"type": "path", "default": "/var/log/juju"}
SERVICE = {"type": "str", "default": "snap.juju-db.daemon"}
PROGRESS = {"type": "path", "default": ""}
LEDGER_FOLDER = {"type": "path", "default": "/var/lib/juju-dr"}
