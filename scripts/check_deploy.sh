#!/bin/sh
# Checks Dockerfile, docker-compose.yml and deploy/ with their own tools; what tests/unit/test_deploy.py holds is not said again here.
# docker-compose and promtool come from the system (`make services S=deploy`): without one its part is left out, and said so;
# with CI=true that is a failure.
set -eu
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
lacking=

has() { command -v "$1" >/dev/null 2>&1; }

compose() {
    if has docker-compose; then docker-compose "$@"; else docker compose "$@"; fi
}

"$bin/hadolint" Dockerfile
"$bin/yamllint" --strict docker-compose.yml deploy
for version in 1.30 1.34; do # the kustomization is no kind of the cluster's
    find deploy/kubernetes -maxdepth 1 -name '*.yaml' ! -name kustomization.yaml -exec \
        "$bin/kubernetes-validate" --quiet --strict --kubernetes-version "$version" {} +
done

if has docker-compose || docker compose version >/dev/null 2>&1; then
    mkdir -p "$site/scripts"
    cp -R docker-compose.yml .env.example deploy "$site"
    cp scripts/env.sh "$site/scripts"
    if (cd "$site" && compose config --quiet 2>/dev/null); then
        echo "docker-compose.yml is accepted without any password" >&2
        exit 1
    fi
    sh "$site/scripts/env.sh" >/dev/null
    (cd "$site" && compose config --quiet)
else
    lacking="$lacking docker-compose"
fi

if has promtool; then
    "$bin/python" scripts/dashboard_rules.py >"$site/dashboard.yml"
    (
        cd deploy/prometheus &&
        promtool check rules alerts.yml "$site/dashboard.yml" >"$site/said" &&
            promtool test rules alerts_test.yml >>"$site/said" &&
            sed "s|/tmp/web_key|$site/said|; s|alerts.yml|$PWD/alerts.yml|" prometheus.yml >"$site/prometheus.yml" &&
            promtool check config "$site/prometheus.yml" >>"$site/said"
    ) || {
        cat "$site/said" >&2
        exit 1
    }
else
    lacking="$lacking promtool"
fi

if [ -n "$lacking" ]; then
    echo "Not checked, for this machine lacks$lacking: make services S=deploy" >&2
    [ "${CI:-}" != true ] || exit 1
fi
echo "Dockerfile, docker-compose.yml and deploy/: checked"
