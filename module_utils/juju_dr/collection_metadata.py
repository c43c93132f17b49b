"""mongodump's ``metadata.json`` and ``prelude.json``: canonical extended JSON, and collection names as file names."""

from __future__ import annotations

import json
from typing import Any, Mapping, Sequence
from urllib.parse import quote, unquote

from bson import json_util

from .errors import JujuDrError

# mongodump escapes what cannot stand in a file name; Juju's collection names hold letters, dots and hyphens.
_SAFE = "!#$&'()*+,;=@[]~-_. "
_CANONICAL = json_util.JSONOptions(json_mode=json_util.JSONMode.CANONICAL, tz_aware=False)


def file_stem(collection: str) -> str:
    """The file name, without ending, of a collection's dump."""
    return quote(collection, safe=_SAFE)


def collection_of(stem: str) -> str:
    """The collection that a dump's file name stands for."""
    return unquote(stem)


def format_metadata(
    collection: str,
    options: Mapping[str, Any],
    indexes: Sequence[Mapping[str, Any]],
    uuid: str,
    kind: str = "collection",
) -> str:
    """One collection's metadata.json as mongodump writes it, byte for byte."""
    document: dict[str, Any] = {}
    if options:
        document["options"] = options
    document["indexes"] = [{key: value for key, value in index.items() if key != "ns"} for index in indexes]
    if uuid:
        document["uuid"] = uuid
    document["collectionName"] = collection
    document["type"] = kind
    return json_util.dumps(document, json_options=_CANONICAL, separators=(",", ":"), ensure_ascii=False)


def parse_metadata(text: str, name: str) -> dict[str, Any]:
    """Reads a metadata.json (canonical, relaxed, or mongodump 2.4's); ``options`` and ``indexes`` are always there.

    :raises JujuDrError: it is no such document.
    """
    try:
        document = json_util.loads(_quoted(text))
    except (ValueError, TypeError) as error:
        raise JujuDrError(f"{name} is not metadata of a collection: {error}", "Take another archive") from error
    if not isinstance(document, dict):
        raise JujuDrError(f"{name} is not metadata of a collection", "Take another archive")
    document = {"options": {}, "indexes": [], **document}
    # MongoDB 2.4 keeps the name among the options.
    document["options"].pop("create", None)
    return document


def _quoted(text: str) -> str:
    """mongodump 2.4 writes its two own keys without quotes: ``{options : {…}, indexes:[…]}``."""
    if text.startswith("{indexes:["):
        return '{"indexes":[' + text[len("{indexes:[") :]
    if text.startswith("{options : "):
        return '{"options":' + text[len("{options :") :].replace("}, indexes:[", '}, "indexes":[', 1)
    return text


def format_prelude(server_version: str, tool_version: str) -> str:
    """prelude.json as mongodump writes it."""
    return json.dumps({"ServerVersion": server_version, "ToolVersion": tool_version}, separators=(",", ":"))
