# Installs the Debian packages named as arguments. Run as root, by `cargo xtask setup`.
set -eu
export DEBIAN_FRONTEND=noninteractive

# Debian starts the servers it installs. The tests start their own, on ports of their own, so a policy forbids it for
# as long as this runs. A policy that somebody else has put there stays as it is.
policy=/usr/sbin/policy-rc.d
mark='placed by cargo xtask setup'
ours() { [ -f "$policy" ] && grep -qF "$mark" "$policy"; }
remove() { if ours; then rm -f "$policy"; fi; }
trap remove EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
    printf '#!/bin/sh\n# %s, which removes it again\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
fi

known() {
    for package in "$@"; do
        apt-cache show --no-all-versions "$package" >/dev/null 2>&1 || return 1
    done
}
update() { apt-get -q -o DPkg::Lock::Timeout=300 update; }
install() { apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --yes --no-install-recommends "$@"; }

if known "$@"; then
    # A list from long ago knows the package but not where it lies now.
    install "$@" || { update && install "$@"; }
else
    update
    install "$@"
fi
