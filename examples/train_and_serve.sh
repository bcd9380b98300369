#!/usr/bin/env bash
# Train two versions, serve them, predict, switch, roll back, stop. Needs hotswap[sklearn] and curl.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

work=$(mktemp -d)
port=${PORT:-8080}
control=${CONTROL_PORT:-8081}
export HOTSWAP_URL=http://127.0.0.1:$control

python models.py "$work/models"
hotswap serve "$work/models" --state-dir "$work/state" --port "$port" --control-port "$control" &
server=$!
trap 'kill -TERM $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT

until curl -sf "http://127.0.0.1:$port/v2/health/ready" >/dev/null; do
  kill -0 "$server" 2>/dev/null || exit 1 # it has said why
  sleep 0.2
done

python -c "
import json
from sklearn.datasets import load_breast_cancer
print(json.dumps({'features': load_breast_cancer().data[0].tolist()}))" >"$work/row.json"

predict() {
  curl -sf "http://127.0.0.1:$port/predict" -H 'content-type: application/json' -d @"$work/row.json"
  echo
}

predict
hotswap switch tumours v1
predict
hotswap rollback tumours
predict
hotswap models list
