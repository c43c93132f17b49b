"""Reads and edits agent.conf by top-level key; every other byte stays as it was.

agent.conf is what Go's YAML writer emits: top-level scalars, quoted scalars, block literals (PEM), sequences whose items
start in column 0, and one-level mappings. Managed hosts have no YAML library that is certain to be there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Mapping, Sequence

from .errors import JujuDrError

_KEY = re.compile(r"^(?P<key>[A-Za-z][A-Za-z0-9_-]*):(?:[ \t]+(?P<rest>.*?))?[ \t]*$")


@dataclass(frozen=True)
class AgentConf:
    """One agent.conf.

    :param blocks: per top-level key the text behind the colon and the lines that belong to it.
    """

    blocks: Mapping[str, tuple[str, tuple[str, ...]]]

    @property
    def is_environment(self) -> bool:
        """Whether it is of Juju 1.x, which has environments instead of models."""
        return "model" not in self.blocks

    def scalar(self, key: str) -> str | None:
        """The value of a scalar or of a block literal; None when the key is not there."""
        if key not in self.blocks:
            return None
        rest, lines = self.blocks[key]
        if rest[:1] in ("|", ">"):
            text = "\n".join(line[2:] for line in lines)
            return text.rstrip("\n") + ("" if rest.endswith("-") else "\n")
        return _unquote(rest)

    def require(self, key: str) -> str:
        """The value of a scalar that every agent.conf of this kind has.

        :raises JujuDrError: it is missing or empty.
        """
        value = self.scalar(key)
        if not value:
            raise JujuDrError(f"agent.conf has no {key}", "Use the agent.conf of a controller machine")
        return value

    def sequence(self, key: str) -> list[str]:
        """The items of a sequence; empty when the key is not there."""
        _, lines = self.blocks.get(key, ("", ()))
        return [_unquote(line.strip()[2:].strip()) for line in lines if line.strip().startswith("- ")]

    def mapping(self, key: str) -> dict[str, str]:
        """A one-level mapping; empty when the key is not there."""
        _, lines = self.blocks.get(key, ("", ()))
        pairs = (line.strip().partition(":") for line in lines if line.strip())
        return {_unquote(name): _unquote(value.strip()) for name, _, value in pairs}


def parse(text: str) -> AgentConf:
    """Reads an agent.conf.

    :raises JujuDrError: the text is not an agent.conf of format 1.18 (Juju 1.18 to 1.25) or 2.0.
    """
    blocks = {}
    for key, start, end in _spans(text.splitlines()):
        lines = text.splitlines()
        matched = _KEY.match(lines[start])
        rest = (matched.group("rest") or "") if matched else ""
        blocks[key] = (rest, tuple(lines[start + 1 : end]))
    if "tag" not in blocks or "apiaddresses" not in blocks:
        raise JujuDrError("This is no agent.conf: it has no tag or no apiaddresses", "Name Juju's own agent.conf")
    return AgentConf(blocks)


def replace_sequence(text: str, key: str, items: Sequence[str]) -> str:
    """The text with the items of one sequence replaced, in the form Juju writes them."""
    start, end = _span(text, key)
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:start], f"{key}:\n", *(f"- {item}\n" for item in items), *lines[end:]])


def drop_mapping_keys(text: str, key: str, names: Sequence[str]) -> str:
    """The text with some keys of a one-level mapping taken out; an empty mapping is written ``{}`` as Juju does."""
    start, end = _span(text, key)
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines[start + 1 : end] if line.strip().partition(":")[0] not in names]
    if len(kept) == end - start - 1:
        return text
    head = lines[start] if any(line.strip() for line in kept) else f"{key}: {{}}\n"
    return "".join([*lines[:start], head, *kept, *lines[end:]])


def _span(text: str, key: str) -> tuple[int, int]:
    for name, start, end in _spans(text.splitlines()):
        if name == key:
            return start, end
    raise JujuDrError(f"agent.conf has no {key}", "Use the agent.conf of a Juju 2.9 or 3.x agent")


def _spans(lines: Sequence[str]) -> list[tuple[str, int, int]]:
    """Key, first line, and line after the last, for every top-level key."""
    starts = [(match.group("key"), index) for index, match in enumerate(map(_KEY.match, lines)) if match]
    ends = [index for _, index in starts[1:]] + [len(lines)]
    return [(key, start, end) for (key, start), end in zip(starts, ends)]


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return str(json.loads(value))
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1].replace("''", "'")
    return value
