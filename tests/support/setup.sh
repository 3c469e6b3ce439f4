#!/usr/bin/env bash
# Put in place what the tests need besides Python: programs of Debian packages and an API server.
#
# Installs as root where apt works; elsewhere says what is missing and how to get it, and goes on:
# the tests that need it then fail by name, the others are still worth running.
set -euo pipefail

# program:package, or folder:package; the one list of what tests call.
NEEDED=(
    git:git
    kubectl:kubernetes-client
    ssh-keygen:openssh-client
    gpg:gnupg
    docker-registry:docker-registry
    sshd:openssh-server
    openssl:openssl
    mosquitto:mosquitto
    nats-server:nats-server
    age:age
    clang:clang
    wasm-ld:lld
    lua5.1:lua5.1
    promtool:prometheus
    npm:npm
    buildah:buildah
    mmdebstrap:mmdebstrap
    /usr/bin/cargo:cargo
    /usr/lib/rustlib/wasm32-unknown-unknown:libstd-rust-dev-wasm32
)

PATH=${PATH}:/usr/sbin:/sbin

say() { printf 'setup: %s\n' "$*" >&2; }

missing=()
for need in "${NEEDED[@]}"; do
    [[ -d ${need%%:*} ]] || command -v "${need%%:*}" >/dev/null || missing+=("${need#*:}")
done

# In runlevel 1 no package starts its server: of Prometheus only a program is wanted.
if ((${#missing[@]})); then
    if ((EUID == 0)) && command -v apt-get >/dev/null && apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq -y --no-install-recommends \
            "${missing[@]}" >/dev/null; then
        say "installed ${missing[*]}"
    else
        say "missing: ${missing[*]}; on Debian, as root: apt-get install ${missing[*]}"
    fi
fi

if [[ -z ${KUBEBUILDER_ASSETS:-} ]]; then
    "$(dirname "$0")/build-apiserver.sh" ||
        say "no kube-apiserver: set KUBEBUILDER_ASSETS to a folder that has etcd and kube-apiserver"
fi
