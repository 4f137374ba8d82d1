# Starts a hive that outlives this connection, and passes on what it announces until it is ready or has failed.
# Parameters: python (may be empty), program, config, lock, cache, advertise, logs, tenths (of a second to wait).
for file in "$program" ${python:+"$python"}; do
    if [ ! -x "$file" ]; then
        say missing "$file"
        exit 0
    fi
done
set -- $SSH_CONNECTION # client address and port, then the server's
umask 077
RBEE_CACHE=$cache
export RBEE_CACHE
mkdir -p "$logs" || exit 1
announced="$logs/hive.announced.$$"
: >"$announced" || exit 1
trap 'rm -f "$announced"' EXIT
# Without setsid sshd would not end it either, but a Ctrl+C in a terminal of that machine might.
setsid ${python:+"$python"} "$program" hive --announce --started-by queen \
    --host "$3" --advertise "$advertise" --config "$config" </dev/null >"$announced" 2>>"$logs/hive.log" &
pid=$!
count=0
while [ "$count" -lt "$tenths" ] && kill -0 "$pid" 2>/dev/null && ! grep -q '^{"\(ready\|error\)"' "$announced"; do
    sleep 0.1
    count=$((count + 1))
done
say holder "$(sed -n 's/.*"started_by":"\([a-z]*\)".*/\1/p' "$lock" 2>/dev/null)"
while IFS= read -r line; do say announced "$line"; done <"$announced"
grep -q '^{"\(ready\|error\)"' "$announced" && exit 0
if kill -0 "$pid" 2>/dev/null; then
    kill -KILL "$pid"
    say late "$tenths"
else
    wait "$pid"
    say exited "$?"
fi
tail -n 20 "$logs/hive.log" | while IFS= read -r line; do say log "$line"; done
