#!/usr/bin/env bash
# Builds the consumer's image, and a partner's on top of it, with neither an engine nor a registry, and tries both out
# (image_test.py). The base is a bare Debian with its own Python, kept in .tools/image, and so are the images.
# DEBIAN_MIRROR names another mirror than debootstrap's own; BASE another base, which has pip: where there is a registry,
# BASE=docker.io/library/python:3.13-slim-trixie tries what the Dockerfile says.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
    echo "image-test: needs root, for chroot and mounts" >&2
    exit 1
fi
missing=()
for tool in buildah debootstrap crun; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} != 0 ]; then
    echo "image-test: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

readonly suite=bookworm
readonly here=$PWD/.tools/image
readonly base=${BASE:-localhost/consumer-base:$suite} build_base=${BASE:-localhost/consumer-build-base:$suite}
readonly image=localhost/health-event-consumer:test project_image=localhost/health-events:test
readonly python=${PYTHON:-python3}
readonly ca=/etc/ssl/certs/ca-certificates.crt

mkdir -p "$here"
build() { buildah --root "$here/storage" --runroot "$here/run" "$@"; }
# A build that failed leaves a container, and its mounts would keep the folder from being removed.
trap 'build rm --all >/dev/null 2>&1 || true' EXIT

# What the machine trusts, the builds trust: pip would look at certificates of its own.
trust=()
if [ -f "$ca" ]; then
    printf '[global]\ncert = %s\n' "$ca" >"$here/pip.conf"
    trust=(--volume "$ca:$ca:ro" --volume "$here/pip.conf:/etc/pip.conf:ro")
fi

built() { # NAME ARGUMENTS...: build an image of that name, quietly unless it fails
    local name=$1 log started=$SECONDS
    log=$here/$(basename "${name%:*}").log
    shift
    if ! build bud --isolation chroot "${trust[@]}" --tag "$name" "$@" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "image-test: $name cannot be built; all of it is in $log" >&2
        exit 1
    fi
    echo "built $name in $((SECONDS - started)) s"
}

has() { build inspect --type image "$1" >/dev/null 2>&1; }

if [ -z "${BASE:-}" ] && ! has "$base"; then
    echo "making a Debian $suite, once"
    rm -rf "$here/debian"
    debootstrap --variant=minbase --include=ca-certificates,python3 "$suite" "$here/debian" \
        ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$here/debootstrap.log" || { tail "$here/debootstrap.log" >&2; exit 1; }
    rm -rf "$here"/debian/var/cache/apt/archives/*.deb "$here"/debian/var/lib/apt/lists/*
    container=$(build from scratch)
    build add --quiet "$container" "$here/debian" / >/dev/null
    build commit --quiet --rm "$container" "$base" >/dev/null
    rm -rf "$here/debian"
fi
if [ -z "${BASE:-}" ] && ! has "$build_base"; then
    mkdir -p "$here/empty"
    built "$build_base" --file - "$here/empty" <<EOF
FROM $base
RUN apt-get update && apt-get install --yes --no-install-recommends python3-pip
EOF
fi

built "$image" --file deploy/Dockerfile --build-arg "BASE=$base" --build-arg "BUILD_BASE=$build_base" .
"$python" deploy/image_test.py image "$here" "$image"

# The partner's project is the one that the image writes, with a package of the partner's own that a handler imports.
project=$here/project
echo "tabulate==0.9.0" >>"$project/requirements.txt"
echo "import tabulate  # noqa" >>"$project/handlers/__init__.py"
built "$project_image" --build-arg "CONSUMER=$image" --build-arg "PYTHON=$build_base" "$project"
"$python" deploy/image_test.py project "$here" "$project_image"
build rmi --prune >/dev/null
build images
