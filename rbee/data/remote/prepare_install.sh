# Makes the folders of an installation, and says what is there. Parameters: install, python.
umask 022
mkdir -p "$install/bin" || exit 1
(umask 077 && mkdir -p "$install/state") || exit 1
rm -f "$install"/bin/.rbee.*.part "$install"/bin/.rbee.*.part.status # left by an installation that was cut
if [ -f "$install/bin/rbee" ]; then
    say hash "$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' \
        "$install/bin/rbee" </dev/null)"
fi
[ -e "$install/config.toml" ] && say config kept
say free "$(df -Pk "$install" | awk 'NR == 2 { print $4 }')"
