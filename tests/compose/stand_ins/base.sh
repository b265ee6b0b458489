#!/bin/sh
# Prints the tar of a minimal Debian, as a substitute for an image when no registry is reachable.
#   base.sh SUITE FOLDER
# It lacks the files that slim images lack, and has this machine's certificate authorities.
set -eu
rm -rf "$2"
debootstrap --variant=minbase --include=ca-certificates "$1" "$2" >"$2.log" 2>&1 || { tail -5 "$2.log" >&2; exit 1; }
for path in var/cache/apt/archives var/lib/apt/lists usr/share/doc usr/share/man usr/share/locale usr/share/info; do
  find "$2/$path" -mindepth 1 -delete
done
cp /etc/ssl/certs/ca-certificates.crt "$2/etc/ssl/certs/ca-certificates.crt"
tar -C "$2" -c .
rm -rf "$2"
