# Checks a program that was brought here, and puts it in the place of the one before, which is kept.
# Parameters: install, python, part (the new file), hash (its SHA-256, empty where unknown), version.
if [ -n "$hash" ]; then
    found=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' \
        "$part" </dev/null)
    if [ "$found" != "$hash" ]; then
        rm -f "$part"
        say damaged "$found"
        exit 0
    fi
fi
chmod 755 "$part" || exit 1
RBEE_CACHE="$install/cache"
export RBEE_CACHE
# Tried before it takes the place: whatever is wrong with it, what is there goes on working.
if ! said=$("$python" "$part" --version 2>&1 </dev/null); then
    rm -f "$part"
    say broken "$(printf '%s' "$said" | tail -n 1)"
    exit 0
fi
if [ -n "$version" ] && [ "$said" != "rbee $version" ]; then
    rm -f "$part"
    say broken "it says it is $said"
    exit 0
fi
cd "$install/bin" || exit 1
if [ -f rbee ]; then
    ln -f rbee .rbee.previous.part && mv -f .rbee.previous.part rbee.previous || exit 1
fi
mv -f "$part" rbee || exit 1
link() { ln -sfn "$1" ".$2.part" && mv -fT ".$2.part" "$2"; }
link "$python" python || exit 1
for name in rbee-keeper queen-rbee rbee-hive llm-worker-rbee; do link rbee "$name" || exit 1; done
say installed "$said"
