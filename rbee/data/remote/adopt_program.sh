# Checks a program that was brought here, and installs it; the previous one is kept.
# Parameters: install, python, kept (the same where the user has named it, to be taken again by the next installation),
# part (the new file; empty where the one in place stays), hash (its SHA-256, empty where
# unknown), version.
refuse() {
    [ -z "$part" ] || rm -f "$part"
    say "$1" "$2"
    exit 0
}
if [ -n "$part" ] && [ ! -f "$part" ]; then refuse gone ""; fi
if [ -n "$hash" ]; then
    found=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' \
        "$part" </dev/null)
    [ "$found" = "$hash" ] || refuse damaged "$found"
fi
RBEE_CACHE="$install/cache"
export RBEE_CACHE
# Tried before it is installed: if it does not start, the installed one goes on working.
said=$("$python" "${part:-$install/bin/rbee}" --version 2>&1 </dev/null) || {
    if [ -n "$part" ] && [ ! -f "$part" ]; then refuse gone ""; fi
    refuse broken "$(printf '%s' "$said" | tail -n 1)"
}
[ -z "$version" ] || [ "$said" = "rbee $version" ] || refuse broken "it says it is $said"
cd "$install/bin" || exit 1
if [ -n "$part" ]; then
    chmod 755 "$part" || exit 1
    if [ -f rbee ]; then
        ln -f rbee .rbee.previous.part && mv -f .rbee.previous.part rbee.previous || exit 1
    fi
    mv -f "$part" rbee || exit 1
fi
link() { ln -sfn "$1" ".rbee.$2.part" && mv -fT ".rbee.$2.part" "$2"; }
link "$python" rbee-python || exit 1
[ -z "$kept" ] || printf '%s\n' "$kept" >"$install/.python"
for name in rbee-keeper queen-rbee rbee-hive llm-worker-rbee; do link rbee "$name" || exit 1; done
say installed "$said"
