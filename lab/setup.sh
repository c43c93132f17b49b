#!/usr/bin/env bash
# Prepares a control machine: virtualenv and, on Debian, the packages the lab needs.
set -euo pipefail
venv=$1
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

mapfile -t wanted < <(grep -v '^#' lab/packages.txt)
if command -v apt-get >/dev/null; then
  missing=()
  for package in "${wanted[@]}"; do
    dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${missing[@]}" >/dev/null
  fi
else
  for command in podman debootstrap ssh python3 shellcheck; do
    command -v "$command" >/dev/null || { echo "lab/setup.sh: $command is missing; install it with your package manager." >&2; exit 1; }
  done
fi

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "lab/setup.sh: python3 must be 3.11 or later on the control machine." >&2; exit 1; }
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --requirement requirements-dev.txt
