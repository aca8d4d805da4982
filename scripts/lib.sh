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
    command -v "$1" >/dev/null 2>&1 && return
    [ "$(id -u)" = 0 ] || die "$1 is missing and only root can install it: run 'apt-get install $2' as root, then start again"
    command -v apt-get >/dev/null || die "$1 is missing and this is no Debian: install it with your package manager, then start again"
    say "installing $2"
    if [ -z "${apt_updated:-}" ]; then
        apt-get update -qq >/dev/null || die "apt-get update failed: see the message above"
        apt_updated=1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null \
        || die "apt-get install $2 failed: see the message above"
}

# The Rust compiler, at least the version the workspace names.
need_rust() {
    apt_need cc gcc
    command -v cargo >/dev/null 2>&1 || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH=$HOME/.cargo/bin:$PATH
    if ! command -v cargo >/dev/null 2>&1; then
        apt-cache show rustup >/dev/null 2>&1 \
            || die "no Rust compiler: install one from https://rustup.rs (stable), then start again"
        apt_need rustup rustup
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
            [ "$(id -u)" = 0 ] || die "python3-venv is missing: run 'apt-get install python3-venv' as root, then start again"
            apt_need no-such-command-so-always python3-venv
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
