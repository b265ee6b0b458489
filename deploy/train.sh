#!/bin/sh
# Trains the preset $MODEL, exports it as the next version and reloads it on all servers. Arguments
# are passed to `latentserve-training train`, for example --set training.epochs=60.
set -eu
latentserve-training train --config "$MODEL" --out "/runs/$MODEL" "$@"
latentserve-training export "/runs/$MODEL" --exports /exports
exec sh /reload.sh
