#!/usr/bin/env sh
# Writes the locks anew from pyproject.toml, with hashes and without addresses of any index. Needs uv.
set -eu
cd "$(dirname "$0")/.."
compile() {
    out=$1
    shift
    uv pip compile pyproject.toml "$@" --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --upgrade --quiet --output-file "requirements/$out.txt"
}
everything="--extra sqs --extra event-hubs --extra storage-queue --extra postgres --extra otel --extra age --extra uvloop"
compile base
# shellcheck disable=SC2086 # a list of words
compile image $everything
compile test --extra sqs --extra event-hubs --extra storage-queue --extra postgres --extra otel --extra age --extra uvloop --group test
# What builds the wheel in the image, in the versions that the tests have.
echo 'hatchling>=1.27' | uv pip compile - --constraint requirements/test.txt --universal --python-version 3.11 \
    --generate-hashes --no-header --no-annotate --quiet --output-file requirements/build.txt
