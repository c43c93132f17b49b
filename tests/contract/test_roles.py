"""What ansible-lint does not see: prefixes of hyphenated roles, misspelt module arguments, rescues that end well."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
MODULES = {path.stem for path in (ROOT / "library").glob("*.py")}
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tasks_in(node: Any) -> Iterator[dict[str, Any]]:
    """Every task of a file, blocks opened."""
    for item in node or []:
        for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks"):
            yield from tasks_in(item.get(key))
        if not {"block", "tasks"} & set(item):
            yield item


def rescues_in(node: Any) -> Iterator[list[dict[str, Any]]]:
    for item in node or []:
        if "rescue" in item:
            yield item["rescue"]
        for key in ("block", "rescue", "always", "tasks"):
            yield from rescues_in(item.get(key))


def files_of(role: str) -> list[Path]:
    return sorted((ROOT / "roles" / role / "tasks").glob("*.yml"))


def defaults_of(role: str) -> dict[str, Any]:
    path = ROOT / "roles" / role / "defaults" / "main.yml"
    return (load(path) or {}) if path.exists() else {}


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_the_optional_arguments(role: str) -> None:
    options = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    optional = {key: value["default"] for key, value in options.items() if not value.get("required")}
    assert optional == defaults_of(role)


@pytest.mark.parametrize("role", ROLES)
def test_every_default_has_its_line_of_meaning(role: str) -> None:
    path = ROOT / "roles" / role / "defaults" / "main.yml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    named = [index for index, line in enumerate(lines) if line[:1].isalpha()]
    assert [lines[index] for index in named if not lines[index - 1].startswith("# ")] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_carries_the_role_s_name(role: str) -> None:
    prefix = role.replace("-", "_") + "_"
    options = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    names = set(defaults_of(role)) | set(options)
    for path in files_of(role):
        for task in tasks_in(load(path)):
            names |= {task["register"]} if "register" in task else set()
            names |= set(task.get("ansible.builtin.set_fact", {}))
    assert {name for name in names if not name.startswith((prefix, "__" + prefix))} == set()


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_no_other_role_s_variables(role: str) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in files_of(role))
    others = [other.replace("-", "_") + "_" for other in ROLES if other != role]
    private = {f"__{other}" for other in others}
    assert [name for name in private if name in text] == []


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_names_every_argument(role: str) -> None:
    text = (ROOT / "roles" / role / "README.md").read_text(encoding="utf-8")
    options = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    assert [name for name in options if f"`{name}`" not in text] == []
    assert len(text.splitlines()) <= 45


@pytest.mark.parametrize("role", ROLES)
def test_galaxy_name_has_underscores(role: str) -> None:
    assert load(ROOT / "roles" / role / "meta" / "main.yml")["galaxy_info"]["role_name"] == role.replace("-", "_")


def test_ansible_doc_renders_every_role() -> None:
    command = [str(Path(sys.executable).parent / "ansible-doc"), "--type", "role", *ROLES]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [role for role in ROLES if role not in printed] == []


@pytest.mark.parametrize("path", [p for role in ROLES for p in files_of(role)], ids=lambda p: f"{p.parts[-3]}/{p.stem}")
def test_module_arguments_exist(path: Path, documentation: dict[str, Any]) -> None:
    for task in tasks_in(load(path)):
        for name in MODULES & set(task):
            options = documentation[name]["options"]
            assert set(task[name] or {}) <= set(options), task["name"]
            required = {key for key, value in options.items() if value.get("required")}
            assert required <= set(task[name] or {}), task["name"]


@pytest.mark.parametrize(
    "path", [*PLAYBOOKS, *(p for role in ROLES for p in files_of(role))], ids=lambda p: f"{p.parts[-3]}/{p.stem}"
)
def test_every_rescue_ends_in_a_failure(path: Path) -> None:
    for rescue in rescues_in(load(path)):
        assert "ansible.builtin.fail" in rescue[-1]


@pytest.mark.parametrize(
    "path", [*PLAYBOOKS, *(p for role in ROLES for p in files_of(role))], ids=lambda p: f"{p.parts[-3]}/{p.stem}"
)
def test_nothing_just_sleeps(path: Path) -> None:
    for task in tasks_in(load(path)):
        assert "ansible.builtin.pause" not in task
        if "until" in task:
            assert "retries" in task
            assert "delay" in task


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda p: p.stem)
def test_playbooks_hold_order_and_guards_only(path: Path) -> None:
    allowed = {"include_role", "import_playbook", "assert", "fail", "set_fact", "add_host"}
    used = {key for task in tasks_in(load(path)) for key in task if key.startswith(("ansible.builtin.", "juju_"))}
    assert used <= {f"ansible.builtin.{name}" for name in allowed}
