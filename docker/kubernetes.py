#!/usr/bin/env python3
"""Checks that rendered manifests keep their promises about isolation, keys and probes.

    docker/kubernetes.py BASE OPEN GPU JOB     the output of `kustomize build` for each overlay
"""

import sys

import yaml


def documents(path: str) -> dict[str, list[dict]]:
    """Returns the documents of a file by kind."""
    found: dict[str, list[dict]] = {}
    with open(path) as file:
        for document in yaml.safe_load_all(file):
            found.setdefault(document["kind"], []).append(document)
    return found


def check_pod(pod: dict) -> dict:
    """Checks a pod's isolation; returns its container."""
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]
    [container] = pod["containers"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"] and security["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]
    return container


def check_replicas(path: str, needs_keys: bool) -> None:
    found = documents(path)
    [replicas] = found["StatefulSet"]
    pod = replicas["spec"]["template"]["spec"]
    container = check_pod(pod)
    keys = [entry for entry in container["env"] if entry["name"] == "SURPRISAL_API_KEYS"]
    assert bool(keys) == needs_keys and all("optional" not in key["valueFrom"]["secretKeyRef"] for key in keys), keys
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == "admin", f"{probe} does not use the admin port"
    admin = container["args"][container["args"].index("--admin-port") + 1]
    assert {"name": "admin", "containerPort": int(admin)} in container["ports"]
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] < pod["terminationGracePeriodSeconds"] - 3600
    assert pod["topologySpreadConstraints"]
    [policy] = found["NetworkPolicy"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= replicas["spec"]["template"]["metadata"]["labels"].items()


def main() -> None:
    base, without_keys, gpu, job = sys.argv[1:]
    check_replicas(base, needs_keys=True)
    check_replicas(gpu, needs_keys=True)
    check_replicas(without_keys, needs_keys=False)
    [work] = documents(job)["Job"]
    check_pod(work["spec"]["template"]["spec"])
    [policy] = documents(base)["NetworkPolicy"]
    clients = policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert clients.items() <= work["spec"]["template"]["metadata"]["labels"].items(), "the policy blocks the job"


main()
