# Exchanges the installed program and the previous one. Parameters: install.
# An exchange that was cut left the other version under a name of its own.
cd "$install/bin" 2>/dev/null && { [ -f rbee.previous ] || mv .rbee.now.part rbee.previous 2>/dev/null; } || {
    say none "$install"
    exit 0
}
RBEE_CACHE="$install/cache"
export RBEE_CACHE
if ! said=$(./rbee-python ./rbee.previous --version 2>&1 </dev/null); then
    say broken "$(printf '%s' "$said" | tail -n 1)"
    exit 0
fi
ln -f rbee .rbee.now.part && mv -f rbee.previous rbee && mv -f .rbee.now.part rbee.previous || exit 1
say installed "$said"
