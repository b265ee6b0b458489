#!/bin/sh
# Calls ReloadModels on every server; through a proxy, the call would reach only one.
set -eu
servers=$(getent ahostsv4 "${SERVERS:-server}" | awk '$2 == "STREAM" {print $1}' | sort -u)
if [ -z "$servers" ]; then
  echo "reload: the name ${SERVERS:-server} resolves to no server" >&2
  exit 1
fi
failed=0
for server in $servers; do
  echo "reload: $server"
  latentserve reload --server "$server:50051" \
    ${LATENTSERVE_RELOAD_TOKEN_FILE:+--token-file "$LATENTSERVE_RELOAD_TOKEN_FILE" --allow-plaintext-token} "$@" || failed=1
done
exit "$failed"
