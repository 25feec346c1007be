#!/bin/sh
# Make Meshtastic-LLM a pair of systemd services that run from this folder. Refuses, with every
# reason at once and before anything is changed, what would not work after the next boot.
set -eu

HERE=$(dirname "$(readlink -f "$0")")
PROGRAM=$(readlink -f "$HERE/../..")
UNITS="meshtastic-llm-bridge.service meshtastic-llm-agent.service meshtastic-llm.target"
USAGE_EXIT=2
CONFIG_EXIT=4

user=meshllm
config=$PROGRAM/config.yaml
is_dry=
is_removal=
starts=yes
unit_dir=${DESTDIR:-}/etc/systemd/system
problems=
stage=

usage() {
  cat <<'TEXT'
usage: sudo deploy/systemd/install.sh [option…]

  --user NAME     who the services run as; made if missing, never root (default: meshllm)
  --config FILE   settings file (default: config.yaml beside the programs)
  --no-start      install and enable, start nothing
  --dry-run       say what would be done; needs no root
  --uninstall     stop and remove the services; data, settings and the user stay
  --help          this text

Run ./run.sh setup first. With DESTDIR set, only the unit files are written, below that folder, and
the rest is left to whoever installs them.
TEXT
}

fail() {
  echo "error: $2" >&2
  exit "$1"
}

# problem WHAT NEXT_STEP: one more reason to refuse.
problem() {
  problems="$problems
  $1
    next: $2"
}

# run COMMAND…: do it, or only say so.
run() {
  if [ -n "$is_dry" ]; then
    echo "would run: $*"
  else
    echo "running: $*"
    "$@"
  fi
}

read_arguments() {
  while [ $# -gt 0 ]; do
    option=${1%%=*}
    case $1 in
      --user=* | --config=*) value=${1#*=} ;;
      --user | --config)
        [ $# -ge 2 ] || fail $USAGE_EXIT "$1 needs a value (see --help)"
        value=$2
        shift
        ;;
    esac
    case $option in
      --user) user=$value ;;
      --config) config=$(readlink -m "$value") ;;
      --no-start) starts= ;;
      --dry-run) is_dry=yes ;;
      --uninstall) is_removal=yes ;;
      -h | --help) usage && exit 0 ;;
      *) fail $USAGE_EXIT "$1: no such option (see --help)" ;;
    esac
    shift
  done
}

# Services that change this machine want root; a look and a package folder do not.
is_for_real() { [ -z "$is_dry" ] && [ -z "${DESTDIR:-}" ]; }

check_caller() {
  if is_for_real && [ "$(id -u)" -ne 0 ]; then
    fail $CONFIG_EXIT "installing services needs root: sudo $0 (or --dry-run to look)"
  fi
  if is_for_real && [ ! -d /run/systemd/system ]; then
    fail $CONFIG_EXIT "systemd does not run this machine: use ./run.sh, or docs/how-to/run-with-docker.md"
  fi
}

check_user() {
  case $user in
    root | 0) problem "--user root: the services do not need root" "leave --user out" ;;
    '' | *[!a-z0-9_-]* | [!a-z_]*)
      problem "--user $user: is no user name" "small letters, digits, _ and -, a letter first"
      ;;
  esac
}

# check_path WHAT PATH: what neither systemd's quoting nor its sandbox may get wrong.
check_path() {
  case $2 in
    *[!A-Za-z0-9/._+@-]*)
      problem "$1 $2: has characters that unit files give a meaning" "move it, to /opt/meshtastic-llm say"
      ;;
    /tmp/* | /var/tmp/* | /dev/shm/*)
      # Packages are made in such folders.
      [ -n "${DESTDIR:-}" ] || problem "$1 $2: is emptied at boot and hidden from the services" "move it, to /opt/meshtastic-llm say"
      ;;
  esac
}

check_program() {
  python=$PROGRAM/.venv/bin/python
  check_path "the program folder" "$PROGRAM"
  if [ ! -x "$python" ]; then
    problem "$python: is not there" "./run.sh setup"
    return
  fi
  real_python=$(readlink -f "$python")
  check_path "the interpreter" "$real_python"
  is_for_real || return 0
  for file in "$PROGRAM/meshtastic_bridge.py" "$config" "$real_python"; do
    runuser -u "$reader" -- test -r "$file" 2>/dev/null ||
      problem "$file: $user cannot read it" "keep the whole in /opt/meshtastic-llm with a Python of the system, or --user with its owner"
  done
}

# as NAME COMMAND…: what belongs to somebody else is not run as root.
as() {
  as_name=$1
  shift
  if [ "$(id -u)" -eq 0 ]; then
    runuser -u "$as_name" -- "$@"
  else
    "$@"
  fi
}

# read_settings: folders that the services write, as the settings have them without this shell's own.
read_settings() {
  is_for_real || reader=$(id -un)
  writable=$(cd "$PROGRAM" && as "$reader" env -i PATH="$PATH" "$python" -B -m meshllm config folders --config "$config") ||
    fail $CONFIG_EXIT "the settings above stop every start: mend $config first"
}

check_folders() {
  for folder in $writable; do
    check_path "the folder" "$folder"
    [ -d "$folder" ] || continue
    foreign=$(find "$folder" ! -user "$owner" \( -name '*.csv' -o -name '*.lock' -o -name 'agent.json' \) -print -quit 2>/dev/null) || foreign=
    [ -z "$foreign" ] ||
      problem "$foreign: belongs to $(stat -c %U "$foreign"), not to $user" \
        "sudo chown -R $user: $folder, or --user $(stat -c %U "$foreign")"
  done
  for role in bridge agent; do
    for folder in $writable; do
      [ -e "$folder/.$role.lock" ] || continue
      systemctl --quiet is-active "meshtastic-llm-$role.service" 2>/dev/null && continue
      flock --nonblock "$folder/.$role.lock" true 2>/dev/null ||
        problem "the $role is running (process $(cat "$folder/.$role.lock" 2>/dev/null || echo unknown))" "stop it: Ctrl-C where ./run.sh runs"
    done
  done
}

refuse_if_needed() {
  [ -z "$problems" ] || fail $CONFIG_EXIT "nothing was changed:$problems"
}

# in_home PATH…: yes when one lies where ProtectHome would hide it.
in_home() {
  for path in "$@"; do
    case $path in /home/* | /root/* | /run/user/*) return 0 ;; esac
  done
  return 1
}

existing_groups() {
  for group in dialout uucp bluetooth; do
    getent group "$group" >/dev/null 2>&1 && printf '%s ' "$group"
  done
  return 0
}

render() {
  protect_home=yes
  # shellcheck disable=SC2086  # one word a folder: check_path has refused spaces
  if in_home "$PROGRAM" "$config" "$real_python" $writable; then protect_home=read-only; fi
  groups=$(existing_groups)
  stage=$(mktemp -d)
  trap 'rm -rf "$stage"' EXIT
  for unit in $UNITS; do
    sed -e "s|@PROGRAM@|$PROGRAM|g" -e "s|@PYTHON@|$python|g" -e "s|@CONFIG@|$config|g" \
      -e "s|@USER@|$user|g" -e "s|@GROUP@|$group_name|g" -e "s|@GROUPS@|${groups% }|g" \
      -e "s|@WRITABLE@|$(echo "$writable" | tr '\n' ' ' | sed 's/ *$//')|g" \
      -e "s|@PROTECT_HOME@|$protect_home|g" -e '/^SupplementaryGroups=$/d' \
      "$HERE/$unit" >"$stage/$unit"
  done
  if command -v systemd-analyze >/dev/null 2>&1; then
    # shellcheck disable=SC2086  # one word a unit
    (cd "$stage" && SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no $UNITS) ||
      fail $CONFIG_EXIT "systemd does not take the units above; nothing was changed"
  fi
}

make_user() {
  is_for_real || [ -n "$is_dry" ] || return 0
  id "$user" >/dev/null 2>&1 ||
    run useradd --system --user-group --no-create-home --home-dir / --shell /usr/sbin/nologin "$user"
}

make_folders() {
  is_for_real || [ -n "$is_dry" ] || return 0
  for folder in $writable; do
    run install -d -o "$user" -g "$group_name" -m 0750 "$folder"
  done
  # The services cannot write here: without this every start would compile everything anew.
  run runuser -u "$(stat -c %U "$PROGRAM")" -- "$python" -m compileall -q "$PROGRAM/meshllm"
}

put_units() {
  run install -d -m 0755 "$unit_dir"
  for unit in $UNITS; do
    run install -m 0644 "$stage/$unit" "$unit_dir/$unit"
  done
}

activate() {
  is_for_real || [ -n "$is_dry" ] || return 0
  run systemctl daemon-reload
  # shellcheck disable=SC2086  # one word a unit
  run systemctl enable $UNITS
  # Restarted, not started: after an upgrade the old program must not run on.
  [ -z "$starts" ] || run systemctl restart meshtastic-llm.target
}

say_next() {
  [ -z "$is_dry" ] || { echo "nothing was changed"; return 0; }
  is_for_real || { echo "unit files are in $unit_dir"; return 0; }
  cat <<TEXT
done. What next:
  systemctl status 'meshtastic-llm-*'     are they running
  journalctl -f -u 'meshtastic-llm-*'     what they say
  sudo usermod -aG $group_name YOU        to read the files as yourself, after the next login
TEXT
}

uninstall() {
  is_there=
  for unit in $UNITS; do [ ! -e "$unit_dir/$unit" ] || is_there=yes; done
  [ -n "$is_there" ] || fail $CONFIG_EXIT "$unit_dir: no units of Meshtastic-LLM there"
  # shellcheck disable=SC2086  # one word a unit
  if is_for_real || [ -n "$is_dry" ]; then run systemctl disable --now $UNITS; fi
  for unit in $UNITS; do run rm -f "$unit_dir/$unit"; done
  if is_for_real || [ -n "$is_dry" ]; then run systemctl daemon-reload; fi
  echo "data, settings, the user $user and $PROGRAM are left as they are"
}

main() {
  read_arguments "$@"
  check_caller
  if [ -n "$is_removal" ]; then
    uninstall
    return
  fi
  check_user
  refuse_if_needed
  owner=$(id -u "$user" 2>/dev/null || echo 4294967294)
  group_name=$(id -gn "$user" 2>/dev/null || echo "$user")
  reader=$user
  id "$user" >/dev/null 2>&1 || reader=nobody
  check_program
  refuse_if_needed
  read_settings
  check_folders
  refuse_if_needed
  render
  make_user
  make_folders
  put_units
  activate
  say_next
}

main "$@"
