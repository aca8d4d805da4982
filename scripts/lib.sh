# Shared by the scripts: where things are, and how what is missing gets installed.
# Source it; it changes to the top of the checkout.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
top=$PWD
target=${CARGO_TARGET_DIR:-$top/target}

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# apt_need COMMAND PACKAGE: installs PACKAGE when COMMAND is not there.
apt_need() {
    command -v "$1" >/dev/null 2>&1 || apt_install "$2"
}

# Installs a Debian package, or says what to do.
apt_install() {
    [ "$(id -u)" = 0 ] || die "the package $1 is missing and only root can install it: run 'apt-get install $1' as root, then start again"
    command -v apt-get >/dev/null || die "the package $1 is missing and this is no Debian: install it with your package manager, then start again"
    say "installing $1"
    if [ -z "${apt_updated:-}" ]; then
        apt-get update -qq >/dev/null || die "apt-get update failed: see the message above"
        apt_updated=1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" ca-certificates >/dev/null \
        || die "apt-get install $1 failed: see the message above"
}

# A C compiler that can link: the headers and start files are a package of their own.
need_cc() {
    apt_need cc gcc
    echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2>/dev/null && return
    apt_install libc6-dev
}

# The Rust compiler, at least the version the workspace names.
need_rust() {
    need_cc
    command -v cargo >/dev/null 2>&1 || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH=$HOME/.cargo/bin:$PATH
    if ! command -v cargo >/dev/null 2>&1; then
        # Debian has rustup from 13 on; its own compilers are older than this workspace needs.
        (apt_install rustup) || die "no Rust compiler, and no package rustup (Debian 13 or later has it): install the stable toolchain as https://rustup.rs says, then start again"
        rustup default stable || die "rustup could not fetch the stable toolchain: see the message above"
    fi
    local have want
    have=$(rustc --version | cut -d' ' -f2)
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -1)" = "$want" ] \
        || die "Rust $have is too old, this workspace needs $want: run 'rustup update stable', then start again"
}

# The test runner. Building it takes minutes, once.
need_nextest() {
    cargo nextest --version >/dev/null 2>&1 && return
    say "installing cargo-nextest"
    cargo install --quiet --locked cargo-nextest || die "cargo install cargo-nextest failed: see the message above"
}

# A virtual environment with the stock gRPC packages; prints its python.
need_grpc_python() {
    local venv=$target/venv
    if [ ! -e "$venv/ready" ]; then
        apt_need python3 python3
        if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
            apt_install python3-venv
        fi
        say "making a Python environment with grpcio"
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$top/scripts/demo.d/requirements.txt" >&2 \
            || die "pip could not install grpcio: see the message above"
        touch "$venv/ready"
    fi
    printf '%s\n' "$venv/bin/python"
}

# What building with the feature `verbs` takes: headers, and the library that reads them. Running takes none of it.
need_verbs() {
    apt_need pkg-config pkg-config
    pkg-config --exists libibverbs || apt_install libibverbs-dev
    pkg-config --exists librdmacm || apt_install librdmacm-dev
    ldconfig -p | grep -q libclang- || apt_install libclang1
    # libclang alone comes without the compiler's own headers; the C compiler's do.
    BINDGEN_EXTRA_CLANG_ARGS="${BINDGEN_EXTRA_CLANG_ARGS:-} -isystem $(cc -print-file-name=include)"
    export BINDGEN_EXTRA_CLANG_ARGS
}

# What checking for the other processor takes: the compiler's library for it, and a C compiler for the cryptography.
# Says why and fails where it cannot be had.
need_aarch64() {
    local triple=aarch64-unknown-linux-gnu
    if [ ! -d "$(rustc --print target-libdir --target $triple)" ]; then
        command -v rustup >/dev/null || { say "no rustup here, and this compiler has no library for $triple"; return 1; }
        rustup target add $triple || { say "rustup could not fetch $triple: see the message above"; return 1; }
    fi
    (apt_need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu) || return 1
    echo '#include <stdlib.h>' | aarch64-linux-gnu-gcc -x c -fsyntax-only - 2>/dev/null || (apt_install libc6-dev-arm64-cross)
}
