#!/bin/sh
# Calls ReloadModels of every server, and not only of the one that a proxy picks.
set -eu
servers=$(getent ahostsv4 "${SERVERS:-server}" | awk '$2 == "STREAM" {print $1}' | sort -u)
if [ -z "$servers" ]; then
  echo "reload: no server answers to the name ${SERVERS:-server}" >&2
  exit 1
fi
failed=0
for server in $servers; do
  echo "reload: $server"
  latentserve reload --server "$server:50051" \
    ${LATENTSERVE_RELOAD_TOKEN_FILE:+--token-file "$LATENTSERVE_RELOAD_TOKEN_FILE"} "$@" || failed=1
done
exit "$failed"
