"""A module called in this process, as Ansible calls it: for tests."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args


def call(capsys: pytest.CaptureFixture[str], module: str, /, **arguments: Any) -> dict[str, Any]:
    """What a module returns for these arguments."""
    with patch_module_args(arguments), pytest.raises(SystemExit):
        importlib.import_module(module).main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    # ansible-core collects these over a whole process; what they are made of is no argument of another module.
    return {key: value for key, value in result.items() if key not in ("warnings", "deprecations")}
