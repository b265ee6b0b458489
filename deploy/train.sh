#!/bin/sh
# Trains the preset $MODEL, exports it as the next version, and has all servers take it. Arguments
# go to `latentserve-training train`, for example --set training.epochs=60.
set -eu
latentserve-training train --config "$MODEL" --out "/runs/$MODEL" "$@"
latentserve-training export "/runs/$MODEL" --exports /exports
exec sh /reload.sh
