#!/usr/bin/env bash
# Start or stop all startup kits in a folder on this machine, in the activated environment: a federation to try out.
# Usage: kits.sh start|stop FOLDER
set -euo pipefail
for kit in "$2"/*/; do
  [ -f "$kit/startup/start.sh" ] || continue # the administrator's
  case "$1" in
    start) nohup "$kit/startup/start.sh" >"$kit/start.log" 2>&1 ;;
    stop) touch "$kit/shutdown.fl" ;;
    *) sed -n 3p "$0" && exit 2 ;;
  esac
done
