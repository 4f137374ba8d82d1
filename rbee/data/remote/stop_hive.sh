# Ends the hive that a lock file names, if that very process still runs: SIGTERM, and past the limit SIGKILL.
# A hive that a user started goes on. Parameters: lock, tenths (of a second to wait), unless_version (may be empty).
number() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$lock" 2>/dev/null; }
text() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$lock" 2>/dev/null; }
pid=$(number pid)
same() {
    [ -n "$pid" ] && [ -r "/proc/$pid/stat" ] || return 1
    stat=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null) || return 1
    # A name in parentheses stands before the fields and may hold spaces: proc(5), field 22 is the 20th after it.
    [ "$(printf '%s' "$stat" | cut -d ' ' -f 20)" = "$(number started_at)" ] || return 1
    case $stat in Z*) return 1 ;; esac # ended; its parent has not read its exit status yet
    grep -q "$(cat /proc/sys/kernel/random/boot_id)" "$lock"
}
if ! same; then
    outcome=gone
    if [ "$(text started_by)" = queen ] && grep -q "$(cat /proc/sys/kernel/random/boot_id)" "$lock" &&
        ! grep -q '"has_left":true' "$lock"; then
        outcome=crashed
    fi
    say "$outcome" "$pid"
    exit 0
fi
if [ -n "$unless_version" ] && [ "$(text version)" = "$unless_version" ]; then
    say same "$pid"
    exit 0
fi
if [ "$(text started_by)" != queen ]; then
    say foreign "$pid"
    exit 0
fi
kill -TERM "$pid"
count=0
while [ "$count" -lt "$tenths" ] && same; do
    sleep 0.1
    count=$((count + 1))
done
if same; then
    kill -KILL "$pid"
    say killed "$pid"
else
    say ended "$pid"
fi
