# What the scripts beside this file share. Sourced after `set -euo pipefail`; works from any directory.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export CCACHE_DIR=$root/.cache/ccache CCACHE_MAXSIZE=2G # nothing but packages outside the checkout
jobs=$(nproc)

say() { printf '%s\n' "$*"; }
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# packages build|develop: the names that this purpose needs.
packages() {
  awk -v purpose="$1" '!/^#/ && NF && ($2 == "build" || $2 == purpose) {print $1}' scripts/packages.txt
}

missing_packages() {
  command -v dpkg-query >/dev/null ||
    fail "this is neither Debian nor Ubuntu; install what these packages hold: $(packages "$1" | xargs)"
  # shellcheck disable=SC2046  # names have no spaces
  comm -23 <(packages "$1" | sort) \
    <(dpkg-query -W -f='${Package} ${db:Status-Status}\n' $(packages "$1") 2>/dev/null |
      awk '$2 == "installed" {print $1}' | sort)
}

# How to become root: nothing when we are; `sudo` when it works or can ask; otherwise false.
as_root() {
  [ "$(id -u)" -eq 0 ] && return
  command -v sudo >/dev/null || return 1
  sudo -n true 2>/dev/null || [ -t 0 ] || return 1
  echo sudo
}

install_packages() {
  local missing become
  missing=$(missing_packages "$1" | xargs)
  [ -z "$missing" ] && return
  become=$(as_root) || {
    say "These packages are missing, and installing them takes root or sudo. Run this, then start again:"
    say "  apt-get update && apt-get install -y --no-install-recommends $missing"
    exit 1
  }
  say "installing packages: $missing"
  local quiet=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
  $become "${quiet[@]}" update || say "the package lists could not be renewed; trying with those that are here"
  # shellcheck disable=SC2086  # a list on purpose
  $become "${quiet[@]}" install -y --no-install-recommends $missing >/dev/null
}

configure() { # PRESET; Ninja does it again by itself when a CMake file changed
  [ -f "build/$1/build.ninja" ] || cmake --preset "$1"
}

build() { # PRESET [TARGET]: brings the target, or everything, up to date
  configure "$1"
  cmake --build "build/$1" -j "$jobs" --target "${2:-all}"
}
