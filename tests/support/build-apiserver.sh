#!/usr/bin/env bash
# Put etcd, kube-apiserver and kube-controller-manager into one folder, from Debian packages alone.
#
#   build-apiserver.sh [FOLDER]     without FOLDER: ~/.cache/scriptops/kube-2
#
# A folder that is complete is left as it is. Needs Debian and root (for apt), and two cores for
# about six minutes; the result is 225 MB and is kept. Where envtest binaries are at hand, set
# KUBEBUILDER_ASSETS instead: the tests look there first.
#
# RECIPE counts the changes of this file that change what comes out: a cache of an older recipe
# must not be taken for this one. tests/support/kube.py names the same number.
set -euo pipefail

RECIPE=2
PROGRAMS=(kube-apiserver kube-controller-manager)
folder=${1:-${HOME}/.cache/scriptops/kube-${RECIPE}}

say() { printf 'build-apiserver: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

is_complete() {
    local program
    for program in etcd "${PROGRAMS[@]}"; do
        [[ -x ${folder}/${program} ]] || return 1
    done
}

install_packages() {
    local sources=/etc/apt/sources.list.d
    [[ -f ${sources}/debian.sources ]] || fail "no ${sources}/debian.sources: this needs Debian 12 or newer"
    sed 's/^Types:.*/Types: deb-src/' "${sources}/debian.sources" >"${sources}/scriptops-deb-src.sources"
    apt-get update -qq || fail "apt-get update failed: no package mirror within reach"
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        dpkg-dev etcd-server golang-github-modern-go-reflect2-dev golang-go jq make rsync \
        >/dev/null || fail "apt-get install failed"
}

unpack() {
    apt-get source -qq --download-only kubernetes >/dev/null 2>&1 ||
        fail "no source package 'kubernetes' at the package mirror"
    dpkg-source -x kubernetes_*.dsc tree >/dev/null 2>&1
}

# reflect2 1.0.1, as vendored, walks the runtime's maps by a layout that Go gave up in 1.18: under
# load the server dies of SIGSEGV. Debian's own package of it is 1.0.2, which asks the runtime.
replace_reflect2() {
    local vendored=tree/vendor/github.com/modern-go/reflect2
    local packaged=/usr/share/gocode/src/github.com/modern-go/reflect2
    rm -r "${vendored}" && mkdir "${vendored}"
    cp "${packaged}"/*.go "${packaged}"/*.s "${vendored}/"
}

# The schema validator asks whether a value is null by comparing two reflect.Values, which Go 1.19
# answers with yes for every empty string; "cron: ''" would be refused as not being a string.
mend_null_check() {
    local file=tree/vendor/k8s.io/kube-openapi/pkg/validation/validate/type.go
    sed -i 's/if data == nil || reflect\.DeepEqual(.*reflect\.ValueOf(data)) {/if data == nil {/' "${file}"
    grep -q 'if data == nil {' "${file}" || fail "the null check of the schema validator has moved"
}

compile() {
    local root=${PWD}
    mkdir -p tree/.go/src/k8s.io
    ln -sfn ../../.. tree/.go/src/k8s.io/kubernetes
    (
        cd tree
        export GOPATH=${PWD}/.go CGO_ENABLED=0 HOME=${root} PATH=/usr/lib/go/bin:${PATH}
        make WHAT="${PROGRAMS[*]/#/cmd/}"
    ) >make.log 2>&1 || { tail -n 30 make.log >&2; fail "the build failed"; }
}

place() {
    local program
    mkdir -p "${folder}"
    install "$(command -v etcd)" "${folder}/etcd"
    for program in "${PROGRAMS[@]}"; do
        install "tree/_output/bin/${program}" "${folder}/${program}"
    done
}

if is_complete; then
    say "${folder} is complete"
    exit 0
fi
[[ ${EUID} -eq 0 ]] || fail "run as root (packages are installed), or set KUBEBUILDER_ASSETS"
scratch=$(mktemp -d)
trap 'rm -rf "${scratch}"' EXIT
install_packages
cd "${scratch}"
unpack
replace_reflect2
mend_null_check
compile
place
say "$("${folder}/kube-apiserver" --version) is in ${folder}"
