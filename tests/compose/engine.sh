#!/usr/bin/env bash
# Runs a command with a Docker engine and Compose version 2, which the tests of this folder need:
#   tests/compose/engine.sh .venv/bin/python -m pytest -m compose tests/compose
#
# Uses installed programs. In CI (CI=true), as root on Debian or Ubuntu, it installs missing ones:
# packages from the distribution, Compose through Go's module proxy. It stops an engine that it
# started. Without an engine, the command runs nevertheless, and the tests are skipped with the
# reason.
#
# LATENTSERVE_ENGINE_DIR  folder of the engine's data, Compose and the base image
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
kept="${LATENTSERVE_ENGINE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/latentserve-engine}"
compose_version=v2.40.3
say() { echo "engine.sh: $*" >&2; }

may_install() { [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

install_packages() {
  say "installing docker.io, iptables, debootstrap and prometheus"
  apt-get update -qq
  # Prevent the start of services: the engine below uses a separate folder.
  local policy=/usr/sbin/policy-rc.d ours=
  if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    docker.io iptables debootstrap prometheus ca-certificates >/dev/null || say "apt-get failed"
  [ -z "$ours" ] || rm -f "$policy"
}

start_engine() {
  mkdir -p "$kept"
  local socket="$kept/docker.sock"
  dockerd --data-root "$kept/data" --exec-root "$kept/exec" --pidfile "$kept/dockerd.pid" \
    -H "unix://$socket" >"$kept/dockerd.log" 2>&1 &
  engine_pid=$!
  trap stop_engine EXIT
  for _ in $(seq 120); do
    if docker -H "unix://$socket" info >/dev/null 2>&1; then
      export DOCKER_HOST="unix://$socket"
      return
    fi
    kill -0 "$engine_pid" 2>/dev/null || break
    sleep 0.5
  done
  say "dockerd did not start; the end of $kept/dockerd.log:"
  tail -5 "$kept/dockerd.log" >&2
}

stop_engine() {
  kill "$engine_pid" 2>/dev/null || true
  wait "$engine_pid" 2>/dev/null || true
}

build_compose() {
  say "building Compose $compose_version from its Go module; the first build takes minutes"
  local source="$kept/compose-source"
  (
    set -e
    folder="$(go mod download -json "github.com/docker/compose/v2@$compose_version" |
      sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')"
    rm -rf "$source" && cp -r "$folder" "$source" && chmod -R u+w "$source" && cd "$source"
    nice go build -buildvcs=false -trimpath -o "$kept/docker-compose" \
      -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$compose_version" ./cmd
  ) >"$kept/compose.log" 2>&1 || say "the build of Compose failed, see $kept/compose.log"
  rm -rf "$source"
}

if may_install && ! { command -v dockerd && command -v debootstrap && command -v prometheus; } >/dev/null; then
  install_packages
fi
if ! docker info >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null; then
  start_engine
fi
if docker compose version --short 2>/dev/null | grep -qE '^v?([2-9]|[1-9][0-9])\.'; then
  export LATENTSERVE_COMPOSE="docker compose"
elif docker-compose version --short 2>/dev/null | grep -qE '^v?([2-9]|[1-9][0-9])\.'; then
  export LATENTSERVE_COMPOSE=docker-compose
else
  if [ ! -x "$kept/docker-compose" ] && may_install && command -v go >/dev/null; then
    mkdir -p "$kept" && build_compose
  fi
  [ ! -x "$kept/docker-compose" ] || export LATENTSERVE_COMPOSE="$kept/docker-compose"
fi
export LATENTSERVE_ENGINE_DIR="$kept"
"$@"
