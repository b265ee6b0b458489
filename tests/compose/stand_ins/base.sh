#!/bin/sh
# Prints the tar of a minimal Debian, in place of an image that no registry can be asked for.
#   base.sh SUITE FOLDER
# What slim images leave out is left out, and this machine's certificate authorities are in it.
set -eu
rm -rf "$2"
debootstrap --variant=minbase --include=ca-certificates "$1" "$2" >"$2.log" 2>&1 || { tail -5 "$2.log" >&2; exit 1; }
for path in var/cache/apt/archives var/lib/apt/lists usr/share/doc usr/share/man usr/share/locale usr/share/info; do
  find "$2/$path" -mindepth 1 -delete
done
cp /etc/ssl/certs/ca-certificates.crt "$2/etc/ssl/certs/ca-certificates.crt"
tar -C "$2" -c .
rm -rf "$2"
