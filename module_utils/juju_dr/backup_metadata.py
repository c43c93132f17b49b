"""Juju's ``metadata.json`` of a backup: formats 0 (1.21 and later), 1 and 2 are read, format 1 is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Mapping

from .errors import JujuDrError
from .schema import generation

FORMATS = (0, 1, 2)
# juju-restore refuses format 2, which only dropped fields that were always empty.
WRITTEN_FORMAT = 1
_ZERO_TIME = "0001-01-01T00:00:00Z"


@dataclass(frozen=True)
class BackupMetadata:
    """What metadata.json says.

    :param model_uuid: of the controller model; of the environment on 1.x.
    :param operating_system: the series on 2.9 (``focal``), the base on 3.x (``ubuntu@22.04``).
    :param controller_uuid: empty in format 0, which did not have it.
    """

    format_version: int
    model_uuid: str
    controller_uuid: str
    machine_id: str
    hostname: str
    version: str
    operating_system: str
    ha_nodes: int
    instance_id: str
    started: str
    notes: str = ""


def parse(text: str) -> BackupMetadata:
    """Reads metadata.json.

    :raises JujuDrError: no JSON object, an unknown format, an unsupported Juju.
    """
    try:
        read = json.loads(text)
    except ValueError as error:
        raise JujuDrError(f"metadata.json is not JSON: {error}", "Take another archive") from error
    if not isinstance(read, dict):
        raise JujuDrError("metadata.json is no object", "Take another archive")
    number = _number(read, "FormatVersion")
    if number not in FORMATS:
        raise JujuDrError(
            f"metadata.json has FormatVersion {number}, known are 0, 1 and 2",
            "Use a juju-dr that knows this format, or an archive made with Juju 2.9 or 3.x",
        )
    version = str(read.get("Version") or "")
    generation(version)
    return BackupMetadata(
        number,
        str(read.get("ModelUUID") or read.get("Environment") or ""),
        str(read.get("ControllerUUID") or ""),
        str(read.get("ControllerMachineID") or read.get("Machine") or ""),
        str(read.get("Hostname") or ""),
        version,
        str(read.get("Base") or read.get("Series") or ""),
        _number(read, "HANodes"),
        str(read.get("ControllerMachineInstanceID") or ""),
        str(read.get("Started") or ""),
        str(read.get("Notes") or ""),
    )


def _number(read: Mapping[str, Any], key: str) -> int:
    value = read.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise JujuDrError(f"metadata.json has {key} {value!r}, which is no number", "Take another archive")
    return value


def format_metadata(metadata: BackupMetadata) -> str:
    """metadata.json of format 1, as Juju writes it: one line."""
    document: dict[str, Any] = {
        "ID": "",
        "FormatVersion": WRITTEN_FORMAT,
        "Checksum": "",
        "ChecksumFormat": "",
        "Size": 0,
        "Stored": _ZERO_TIME,
        "Started": metadata.started,
        "Finished": _ZERO_TIME,
        "Notes": metadata.notes,
        "ModelUUID": metadata.model_uuid,
        "Machine": metadata.machine_id,
        "Hostname": metadata.hostname,
        "Version": metadata.version,
        "Series" if generation(metadata.version) == "2.9" else "Base": metadata.operating_system,
        "ControllerUUID": metadata.controller_uuid,
        "HANodes": metadata.ha_nodes,
        "ControllerMachineID": metadata.machine_id,
        "ControllerMachineInstanceID": metadata.instance_id,
    }
    return json.dumps(document, separators=(",", ":")) + "\n"
