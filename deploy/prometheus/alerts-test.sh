#!/bin/sh
# Checks the alert rules and runs their tests with promtool: the one on PATH, or that of Debian's package `prometheus`,
# which is downloaded and unpacked, not installed.
set -eu
cd "$(dirname "$0")"

promtool=$(command -v promtool || true)
if [ -z "$promtool" ]; then
    command -v apt-get >/dev/null || { echo "needs promtool on PATH, or apt-get to fetch Debian's" >&2; exit 1; }
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    here=$PWD
    cd "$folder"
    # apt gives up root's rights for a download, and may not write here without them.
    chmod 755 "$folder"
    apt-get download -qq -o APT::Sandbox::User=root prometheus
    dpkg-deb -x prometheus_*.deb .
    cd "$here"
    promtool=$folder/usr/bin/promtool
fi

"$promtool" check rules alerts.yaml
"$promtool" test rules alerts_test.yaml
