#!/usr/bin/env bash
# Chromedriver on a free port of loopback.
#
# Prints one line of JSON, {"url": …}, and runs until its standard input closes or it gets a signal; then it ends all
# browsers and removes their profiles.
set -euo pipefail

# Profiles, caches and settings of the browsers are below this folder, not in the user's home.
folder=$(mktemp -d "${TMPDIR:-/tmp}/roster-browsers.XXXXXX")
export TMPDIR=$folder XDG_CONFIG_HOME=$folder/config XDG_CACHE_HOME=$folder/cache
port='' driver=''

stop() {
  trap - EXIT INT TERM HUP
  exec 2>/dev/null # The shell would tell of the job that it lost.
  # Asked to shut down, it ends the browsers too; killed, it leaves them behind.
  [ -z "$port" ] || curl --silent --max-time 10 --noproxy '*' --output /dev/null "http://127.0.0.1:$port/shutdown" || true
  [ -z "$driver" ] || kill -KILL -- "-$driver" || true
  [ -z "$driver" ] || wait "$driver" || true
  rm -rf "$folder"
}
trap stop EXIT
trap 'exit 0' INT TERM HUP

mkfifo "$folder/said"
set -m # A process group of its own, so that Ctrl-C reaches the browsers only through `stop`.
chromedriver --port=0 --log-level=WARNING </dev/null >"$folder/said" 2>&1 &
driver=$!
set +m
exec 3<"$folder/said"
while [ -z "$port" ]; do
  read -r line <&3 || { echo "start_chromedriver.sh: chromedriver ended (tests/counterparts/install)" >&2; exit 1; }
  port=$(sed -n 's/.*started successfully on port \([0-9]*\).*/\1/p' <<<"$line")
done
cat <&3 >/dev/null & # What it says later must not fill the pipe.
echo "{\"url\": \"http://127.0.0.1:$port\"}"
exec 1>&-
cat >/dev/null # Until standard input closes.
