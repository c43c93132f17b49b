"""What a module's documentation says is what its code does."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils import basic

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = sorted(path.stem for path in (ROOT / "library").glob("*.py"))
COMPARED = ("type", "default", "required", "choices", "elements")


class SpecSeen(Exception):
    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        super().__init__()


def spec_of(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    def intercept(self: Any, argument_spec: dict[str, Any], **_: Any) -> None:
        raise SpecSeen(argument_spec)

    monkeypatch.setattr(basic.AnsibleModule, "__init__", intercept)
    module = importlib.import_module(name)
    with pytest.raises(SpecSeen) as seen:
        module.main()
    return seen.value.spec


def normal(option: dict[str, Any]) -> dict[str, Any]:
    kept = {key: option[key] for key in COMPARED if option.get(key) is not None}
    kept.setdefault("type", "str")
    if not kept.get("required"):
        kept.pop("required", None)
    return kept


@pytest.mark.parametrize("name", MODULES)
def test_documented_options_are_the_options(name: str, documentation: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(name, monkeypatch)
    assert documentation[name]["module"] == name
    documented = {key: normal(value) for key, value in documentation[name]["options"].items()}
    assert documented == {key: normal(value) for key, value in spec.items()}


@pytest.mark.parametrize("name", MODULES)
def test_examples_and_results_are_yaml_with_samples(name: str) -> None:
    module = importlib.import_module(name)
    examples = yaml.safe_load(module.EXAMPLES)
    assert len(examples) >= 1
    assert all(name in example for example in examples)
    for key, result in yaml.safe_load(module.RETURN).items():
        assert {"description", "returned", "type"} <= set(result), key
        # Ansible would take these for its own word of how the module ended.
        assert key not in {"failed", "skipped", "unreachable"}


def test_ansible_doc_renders_every_module(documentation: dict[str, Any]) -> None:
    assert sorted(documentation) == MODULES


@pytest.mark.parametrize(
    "path", [*(ROOT / "library").glob("*.py"), *(ROOT / "module_utils").rglob("*.py")], ids=lambda p: p.name
)
def test_what_runs_on_managed_hosts_parses_under_the_oldest_python(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names} | {
        (node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert imported <= set(sys.stdlib_module_names) | {"ansible", "bson", "pymongo", "gridfs", "isal", "zstandard"}
    # Fed to workload machines whose Python is older still.
    if path.stem not in ("__init__", "repoint_remote"):
        assert "annotations" in {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}


@pytest.mark.parametrize("path", sorted((ROOT / "module_utils").rglob("*.py")), ids=lambda p: p.name)
def test_shared_code_does_not_import_ansible(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in modules if name.startswith("ansible")]


def test_a_module_tells_how_far_it_is_exactly_where_it_is_watched(documentation: dict[str, Any]) -> None:
    watched = {path.stem for path in (ROOT / "action_plugins").iterdir() if path.is_symlink()}
    assert watched == {name for name, one in documentation.items() if "progress" in one["options"]}
