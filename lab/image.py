"""The image of the lab's hosts: Debian 12 with systemd, sshd, mongod, and a stand-in for the juju-db snap."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab import mongod
from lab.podman import FOLDER, as_root, limits, podman

NAME = "localhost/juju-dr-lab"
OVERLAY = Path(__file__).resolve().parent / "overlay"
BASE = FOLDER / "base.tar"
# debootstrap resolves no virtual packages: cffi is named for zstandard.
PACKAGES = (
    "systemd,systemd-sysv,dbus,python3,python3-pymongo,python3-bson-ext,openssh-server,openssh-client,sudo,iproute2,"
    "ca-certificates,procps,libcurl4,kmod,age,python3-cffi-backend,python3-zstandard"
)

# Runs once in a container of the base; what it leaves is the image.
SET_UP = r"""
set -eu
useradd --create-home --shell /bin/bash --uid 1000 ubuntu
useradd --system --no-create-home syslog
echo 'ubuntu ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/ubuntu
install -d -o ubuntu -g ubuntu -m 700 /home/ubuntu/.ssh
rm -f /etc/ssh/ssh_host_*
systemctl enable --quiet ssh lab-host-keys
for unit in getty@tty1 console-getty systemd-timesyncd apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer \
    dpkg-db-backup.timer systemd-udevd systemd-logind systemd-pstore systemd-networkd systemd-resolved; do
  systemctl mask --quiet "$unit" 2>/dev/null || true
done
echo 'UseDNS no' > /etc/ssh/sshd_config.d/lab.conf
"""


def ensure() -> str:
    """Builds the image unless it is there as this code makes it; returns its name and tag."""
    binary = mongod.ensure()
    name = f"{NAME}:{_digest()}"
    if _exists(name):
        return name
    print("Building the lab's image (once) …", flush=True)
    _base()
    podman("import", "--quiet", str(BASE), f"{NAME}:base")
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        tree = Path(scratch) / "tree"
        shutil.copytree(OVERLAY, tree, symlinks=True)
        (tree / "opt" / "mongo").mkdir(parents=True)
        shutil.copytree(binary.library_path, tree / "opt" / "mongo" / "lib", symlinks=True)
        shutil.copy2(binary.binary, tree / "opt" / "mongo" / "mongod")
        overlay = Path(scratch) / "overlay.tar"
        subprocess.run(["tar", "--owner=0", "--group=0", "-C", str(tree), "-cf", str(overlay), "."], check=True)
        container = podman("create", *limits(), f"{NAME}:base", "/bin/bash", "-c", "sleep 600").strip()
        try:
            podman("start", container)
            podman("exec", "-i", container, "tar", "-C", "/", "-xf", "-", stdin=overlay.read_bytes())
            podman("exec", "-i", container, "bash", "-s", stdin=SET_UP)
            podman(
                "commit",
                "--quiet",
                "--change",
                'CMD ["/lib/systemd/systemd"]',
                "--change",
                "STOPSIGNAL SIGRTMIN+3",
                container,
                name,
            )
        finally:
            podman("rm", "--force", "--time", "0", container)
    return name


def _exists(name: str) -> bool:
    return bool(podman("images", "--quiet", name).strip())


def _digest() -> str:
    digest = hashlib.sha256((SET_UP + PACKAGES).encode())
    for path in sorted(p for p in OVERLAY.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(OVERLAY)).encode() + path.read_bytes() + bytes([path.stat().st_mode & 0o111 > 0]))
    return digest.hexdigest()[:12]


def _base() -> None:
    """A minimal Debian 12, cached: its packages are the slow part."""
    wanted = BASE.with_suffix(".packages")
    if BASE.exists() and wanted.exists() and wanted.read_text(encoding="utf-8") == PACKAGES:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    tree = FOLDER / "base"
    subprocess.run(as_root(["rm", "-rf", str(tree)]), check=True)
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(tree)]
    done = subprocess.run(as_root(command), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"debootstrap failed: {done.stdout[-1000:]}{done.stderr[-500:]}")
    subprocess.run(
        as_root(["tar", "--exclude=./var/cache/apt/archives/*.deb", "-C", str(tree), "-cf", str(BASE), "."]), check=True
    )
    subprocess.run(as_root(["rm", "-rf", str(tree)]), check=True)
    wanted.write_text(PACKAGES, encoding="utf-8")
