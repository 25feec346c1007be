#!/usr/bin/env bash
# Set up, start, supervise, try out and test Meshtastic-LLM. What can be decided in Python is decided there.
set -u
from=$PWD
cd "$(dirname "$(readlink -f "$0")")" || exit 1

VENV=.venv
PY=$VENV/bin/python
CONFIG_EXIT=4
RUNNING_EXIT=5
USAGE_EXIT=2

usage() {
  cat <<'TEXT'
usage: ./run.sh [command]

  (none)             set up if needed, start bridge and agent, restart what fails; Ctrl-C stops both
  demo               the same two processes on a simulated mesh: type as a mesh user, read the answers
  demo --say "TEXT"  send one DM and print the answer as the far radio received it
                     (exit 0; 3: no answer within --timeout, 180 s)
  setup              make .venv and install what requirements.lock names
  test               format, lint, types, import contracts, tests
  bench              measure; results go to docs/explanation/performance.md
  soak               the long tests: kills, power cuts, floods of forged ids
  status|send|…      any verb of `python -m meshllm` (see: python -m meshllm --help)
  --help             this text

Settings: config.yaml, .env or the environment (docs/reference/config.md).
TEXT
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  echo "error: no Python 3.11 to 3.13 found (on Debian: sudo apt install python3 python3-venv)" >&2
  return 1
}

# setup LOCKFILE…: install the given lock files unless this very content is installed already.
setup() {
  local stamp=$VENV/.installed made=$VENV/.made file is_missing=0 args=() python
  for file in "$@"; do
    grep -qxF "$(cksum <"$file")" "$stamp" 2>/dev/null || is_missing=1
  done
  [ -e "$made" ] && [ "$is_missing" -eq 0 ] && return 0
  if [ ! -e "$made" ]; then
    python=$(find_python) || return $CONFIG_EXIT
    echo "setting up $VENV with $python …" >&2
    # --clear: a set-up that was cut off left half an environment that looks like a whole one.
    "$python" -m venv --clear "$VENV" >&2 || {
      echo "error: cannot make a virtual environment (on Debian: sudo apt install python3-venv)" >&2
      return $CONFIG_EXIT
    }
    : >"$made"
  fi
  for file in "$@"; do args+=(-r "$file"); done
  "$PY" -m pip install --quiet --disable-pip-version-check "${args[@]}" >&2 || {
    echo "error: installing failed; is the package index reachable? (try again: ./run.sh setup)" >&2
    return $CONFIG_EXIT
  }
  # Written afresh: after a step back to an older lock file its versions must be installed again.
  for file in "$@"; do cksum <"$file"; done >"$stamp"
}

setup_core() { setup requirements.lock; }
setup_dev() { setup requirements.lock requirements-dev.lock; }

# supervise NAME COMMAND…: run, and run again with growing pauses, until stopped or told not to.
supervise() {
  local name=$1 pause=1 child=0 status started stopping=0
  shift
  trap 'stopping=1; [ "$child" -ne 0 ] && kill -TERM "$child" 2>/dev/null' TERM INT HUP
  while :; do
    started=$SECONDS
    "$@" &
    child=$!
    [ "$stopping" -eq 1 ] && kill -TERM "$child" 2>/dev/null
    wait "$child"
    status=$?
    while kill -0 "$child" 2>/dev/null; do
      wait "$child"
      status=$?
    done
    child=0
    [ "$stopping" -eq 1 ] && return 0
    case $status in
      0) return 0 ;;
      "$CONFIG_EXIT" | "$RUNNING_EXIT" | "$USAGE_EXIT") return "$status" ;;
    esac
    [ $((SECONDS - started)) -gt 60 ] && pause=1
    echo "run.sh: $name ended with $status; starting it again in $pause s" >&2
    sleep "$pause" &
    child=$!
    [ "$stopping" -eq 1 ] || wait "$child"
    child=0
    [ "$stopping" -eq 1 ] && return 0
    pause=$((pause * 2 > 60 ? 60 : pause * 2))
  done
}

start() {
  setup_core || return $?
  "$PY" -m meshllm start-check "$@" || return $?
  local bridge='' agent='' status=0 first=0 stopping=0
  trap 'stopping=1; kill -TERM $bridge $agent 2>/dev/null' TERM INT HUP
  supervise bridge "$PY" meshtastic_bridge.py "$@" &
  bridge=$!
  supervise agent "$PY" ai_agent.py "$@" &
  agent=$!
  if [ "$stopping" -eq 0 ]; then
    wait -n "$bridge" "$agent"
    first=$?
  fi
  kill -TERM "$bridge" "$agent" 2>/dev/null
  for pid in "$bridge" "$agent"; do
    wait "$pid"
    status=$?
    while kill -0 "$pid" 2>/dev/null; do
      wait "$pid"
      status=$?
    done
    [ "$status" -ne 0 ] && [ "$status" -lt 128 ] && first=$status
  done
  [ "$first" -ge 128 ] && first=0
  return "$first"
}

run_tests() {
  setup_dev || return $?
  local failed=0
  "$VENV/bin/ruff" format --check . || failed=1
  "$VENV/bin/ruff" check . || failed=1
  "$VENV/bin/mypy" || failed=1
  "$VENV/bin/lint-imports" || failed=1
  # Three at a time also on two cores: much of a test's time is waiting.
  "$PY" -m pytest -n 3 --dist worksteal "$@" || failed=1
  return $failed
}

# verb NAME…: a verb of the operator's tool, from where it was called: paths it is given are meant there.
verb() {
  local here=$PWD
  cd "$from" || return 1
  # -P: a folder of the caller's that is called meshllm is not ours.
  PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} exec "$here/$PY" -P -m meshllm "$@"
}

command=${1:-start}
[ $# -gt 0 ] && shift
case $command in
  start) start "$@" ;;
  setup) setup_core ;;
  test) run_tests "$@" ;;
  bench) setup_dev && exec "$PY" -m benchmarks "$@" ;;
  soak) setup_dev && exec "$PY" -m pytest -m slow tests "$@" ;;
  -h | --help | help) usage ;;
  --config | --config=*) start "$command" "$@" ;;
  *) setup_core && verb "$command" "$@" ;;
esac
