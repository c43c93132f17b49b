"""What ansible-doc says of every module, fragments included; asked once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def documentation() -> dict[str, Any]:
    names = sorted(path.stem for path in (ROOT / "library").glob("*.py"))
    command = [str(Path(sys.executable).parent / "ansible-doc"), "--json", *names]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name: one["doc"] for name, one in json.loads(printed).items()}
