#!/usr/bin/env bash
# Runs the Dockerfile's `cpu` stage without Docker, in a bookworm root from debootstrap, with the binary that
# `cargo build --release` wrote. Needs root, apt and port 8000; the first run also needs the network.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "skipped: running a stage needs root and apt" && exit 0
fi
program="${CARGO_TARGET_DIR:-target}/release/surprisal"

base="${XDG_CACHE_HOME:-$HOME/.cache}/surprisal-ci/bookworm.tar"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
if [ ! -e "$base" ]; then
    command -v debootstrap >/dev/null || (apt-get update && apt-get install -y --no-install-recommends debootstrap) >/dev/null
    # Use this machine's mirror.
    debian=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)
    debootstrap --variant=minbase bookworm "$root" "$debian" >/dev/null
    tar -C "$root" -cf "$base.part" . && mv "$base.part" "$base"
else
    tar -C "$root" -xpf "$base"
fi
# Name resolution of the host, as a container engine provides it.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
chmod 755 "$root"
python3 docker/stage.py "$root" "$program"
