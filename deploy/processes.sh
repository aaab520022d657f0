#!/bin/sh
# The processes of compose.yaml without containers: two servers and three workers on one
# PostgreSQL, for a machine of one's own or a look at how they share the work.
#   LOCKSTEP_DATABASE_URL=postgres://… LOCKSTEP_MASTER_KEY=… sh deploy/processes.sh [PORT]
# They listen on five ports from PORT (8080) on, the servers on the first two. All end when
# one does, or when this script is interrupted or terminated.
set -eu
: "${LOCKSTEP_DATABASE_URL:?names the PostgreSQL database}"
lockstep=${LOCKSTEP:-lockstep}
port=${1:-8080}
pids=

end() {
	trap '' INT TERM
	# shellcheck disable=SC2086
	kill $pids 2>/dev/null || :
	wait
}
trap 'end; exit 0' INT TERM

for command in serve serve worker worker worker; do
	"$lockstep" $command --listen "127.0.0.1:$port" &
	pids="$pids $!"
	port=$((port + 1))
done

while :; do
	for pid in $pids; do
		if ! kill -0 "$pid" 2>/dev/null; then
			echo "process $pid has ended; the others are stopped" >&2
			end
			exit 1
		fi
	done
	sleep 1 &
	wait $! || :
done
