#!/usr/bin/env bash
# Start or stop all startup kits in a folder on this machine, in the activated environment: a federation to try out.
# Usage: kits.sh start|stop FOLDER
set -euo pipefail
if [ $# -ne 2 ] || [[ ! $1 =~ ^(start|stop)$ ]]; then
  sed -n 3s/..//p "$0" >&2 && exit 2
fi
if ! ls "$2"/*/startup/start.sh >/dev/null 2>&1; then
  echo "kits.sh: $2: no startup kits (*/startup/start.sh); expected the folder that \`tools provision\` printed." >&2 && exit 1
fi
for start in "$2"/*/startup/start.sh; do # the administrator's kit has none
  kit=$(dirname "$(dirname "$start")")
  if [ "$1" = stop ]; then touch "$kit/shutdown.fl"; else nohup "$start" >"$kit/start.log" 2>&1; fi
done
