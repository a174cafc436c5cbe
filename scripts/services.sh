#!/bin/sh
# Installs what the servers for development and tests need: `scripts/services.sh [kafka] [postgres] [s3] [rest] [registry] [redis] [faketime]`,
# without a name all of them; `deploy` installs what checks the files of deploy/. Prints each command first and asks before it runs it; CI=true asks nothing.
#
# Jars and binaries go into K2_CACHE (~/.cache/k2stream), by version; what is there is not made again.
set -eu
cd "$(dirname "$0")/.."

recipes=k2stream/dev/recipes
cache=${K2_CACHE:-$HOME/.cache/k2stream}
. "$recipes/versions.env"
failed=

has() { command -v "$1" >/dev/null 2>&1; }

as_root() { if [ "$(id -u)" = 0 ]; then echo "$*"; else echo "sudo $*"; fi; }

# One command line, shown, asked for, run.
run() {
    printf '\n    %s\n' "$1"
    if [ "${CI:-}" != true ]; then
        printf 'Run it? [y/N] '
        read -r answer || answer=
        case $answer in y | Y | yes) ;; *) echo "Left out." && return 1 ;; esac
    fi
    sh -c "$1"
}

apt() {
    if ! has apt-get; then
        echo "$1: this machine has no apt-get. Install $2 with its package manager." >&2
        return 1
    fi
    run "$(as_root apt-get update -q) && $(as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$2")"
}

kafka() {
    jars=$cache/kafka-$KAFKA
    has java || apt kafka default-jre-headless || return 1
    [ ! -e "$jars/complete" ] || return 0
    has mvn || apt kafka maven || return 1
    mkdir -p "$cache"
    run "mvn -q -B -f $recipes/kafka/pom.xml -Dkafka.version=$KAFKA dependency:copy-dependencies -DoutputDirectory='$jars' && touch '$jars/complete'"
}

postgres() {
    for found in /usr/lib/postgresql/*/bin/initdb; do [ ! -x "$found" ] || return 0; done
    has initdb || apt postgres postgresql
}

redis() { has redis-server || has valkey-server || apt redis redis-server; }

go_build() { # name, binary, command line
    [ ! -x "$2" ] || return 0
    has go || apt "$1" golang-go || return 1
    mkdir -p "$(dirname "$2")"
    run "$3"
}

s3() {
    folder=$cache/versitygw-$VERSITYGW
    go_build s3 "$folder/versitygw" "GOBIN='$folder' go install github.com/versity/versitygw/cmd/versitygw@$VERSITYGW"
}

rest() {
    folder=$cache/iceberg-rest-$ICEBERG
    has java && has javac || apt rest default-jdk-headless || return 1
    [ ! -e "$folder/complete" ] || return 0
    has mvn || apt rest maven || return 1
    mkdir -p "$cache"
    run "mvn -q -B -f $recipes/rest/pom.xml -Diceberg.version=$ICEBERG dependency:copy-dependencies -DoutputDirectory='$folder' &&
    javac -cp '$folder/*' -d '$folder' $recipes/rest/IcebergRest.java && touch '$folder/complete'"
}

registry() {
    binary=$cache/registry-$REGISTRY/registry
    go_build registry "$binary" "go build -C $recipes/registry -o '$binary' ."
}

# A library that gives one program a clock of its own: a worker whose clock is wrong, in tests and in `k2 chaos`.
faketime() {
    [ "$(uname)" = Linux ] || return 0
    for found in /usr/lib/*/faketime/libfaketimeMT.so.1; do [ ! -e "$found" ] || return 0; done
    apt faketime faketime
}

deploy() {
    has docker-compose || docker compose version >/dev/null 2>&1 || apt deploy docker-compose || return 1
    has promtool || apt deploy prometheus
}

[ $# -gt 0 ] || set -- kafka postgres s3 rest registry redis faketime
for name in "$@"; do
    case $name in
    kafka | postgres | s3 | rest | registry | redis | faketime | deploy)
        if "$name"; then echo "$name: ready"; else failed="$failed $name"; fi
        ;;
    *)
        echo "$name: no such service; there are kafka, postgres, s3, rest, registry, redis, faketime, deploy" >&2
        exit 2
        ;;
    esac
done
if [ -n "$failed" ]; then
    echo "Not ready:$failed" >&2
    exit 1
fi
