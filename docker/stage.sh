#!/usr/bin/env bash
# Carries out the Dockerfile's stage for CPUs without Docker: on a bookworm of debootstrap's, with the program that `cargo build
# --release` made. Needs root, apt and its registry the first time, and port 8000.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "skipped: carrying out a stage takes root and apt" && exit 0
fi
program="${CARGO_TARGET_DIR:-target}/release/surprisal"

base="${XDG_CACHE_HOME:-$HOME/.cache}/surprisal-ci/bookworm.tar"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
if [ ! -e "$base" ]; then
    command -v debootstrap >/dev/null || (apt-get update && apt-get install -y --no-install-recommends debootstrap) >/dev/null
    # From where this machine has its own packages.
    debian=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)
    debootstrap --variant=minbase bookworm "$root" "$debian" >/dev/null
    tar -C "$root" -cf "$base.part" . && mv "$base.part" "$base"
else
    tar -C "$root" -xpf "$base"
fi
# The host's way to names, as an engine gives it to a container.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
chmod 755 "$root"
python3 docker/stage.py "$root" "$program"
