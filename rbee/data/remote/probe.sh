# Says what this machine is; run by `sh -s` over SSH, on machines that may have only a POSIX shell.
# Parameters: python (the only Python to ask; empty for all that are found), install (the folder of an installation, in
# which the Python that was named for it is noted; may be empty).
say home "$HOME"
say system "$(uname -s)"
say machine "$(uname -m)"
say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
# Of each Python what the launcher asks: its version, why the program's modules cannot be loaded into it, the modules
# that it was built without, and its own path, not that of a shim or a venv: those may be gone in another shell or on
# another day.
asked='import os, sys
lacks = []
for name in ("ctypes", "sqlite3", "ssl", "zlib"):
    try:
        __import__(name)
    except ImportError:
        lacks.append(name)
misfit = "-"
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
except (AttributeError, ValueError):
    libc = ""
if "t" in getattr(sys, "abiflags", ""):
    misfit = "free-threaded"
elif sys.maxsize < 2**32:
    misfit = "32-bits"
elif not libc.startswith("glibc "):
    misfit = "without-glibc"
path = getattr(sys, "_base_executable", None) or sys.executable
version = "%d.%d.%d" % sys.version_info[:3]
print("%s %s %s %s %s" % (sys.implementation.name, version, misfit, ",".join(lacks) or "-", path))'
seen=:
count=0
ask() {
    [ "$count" -lt 50 ] || return 1 # each takes some 30 ms, and who asks has patience for half a minute
    path=$(command -v "$1" 2>/dev/null) || return 1
    # Links and shims lead to the same one.
    real=$(readlink -f "$path" 2>/dev/null) || real=$path
    case $seen in *":$real:"*) return 0 ;; esac
    seen=$seen$real:
    count=$((count + 1))
    said=$("$path" -c "$asked" 2>/dev/null </dev/null) || return 1
    say "$2" "$said"
}
case $python in "~/"*) python=$HOME/${python#"~/"} ;; esac
[ -d "$python" ] && python=$python/bin/python3
if [ -n "$python" ]; then
    ask "$python" named || say lost "$python"
elif [ -n "$install" ] && [ -f "$install/.python" ]; then
    IFS= read -r kept <"$install/.python" && ask "$kept" kept
fi
if [ -z "$python" ]; then
    data=${XDG_DATA_HOME:-$HOME/.local/share}
    for name in python3.14 python3.13 python3.12 python3.11 python3 \
        /usr/local/bin/python3.1[1-9] "$HOME"/.local/bin/python3* "$HOME"/bin/python3* \
        /opt/python*/bin/python3 /opt/python/*/bin/python3 /opt/*conda*/bin/python3 /opt/*forge*/bin/python3 \
        "$HOME"/*conda*/bin/python3 "$HOME"/.conda/bin/python3 "$HOME"/*forge*/bin/python3 \
        "$HOME"/micromamba/bin/python3 "$HOME"/*conda*/envs/*/bin/python3 "$HOME"/*forge*/envs/*/bin/python3 \
        "$HOME"/micromamba/envs/*/bin/python3 "$HOME"/.conda/envs/*/bin/python3 \
        "${UV_PYTHON_INSTALL_DIR:-$data/uv/python}"/*/bin/python3 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3 \
        "${ASDF_DATA_DIR:-$HOME/.asdf}"/installs/python/*/bin/python3 "$data"/mise/installs/python/*/bin/python3 \
        "$HOME"/.rye/py/*/bin/python3 "$data"/hatch/pythons/*/python/bin/python3 \
        /home/linuxbrew/.linuxbrew/bin/python3* "$HOME"/.nix-profile/bin/python3 /run/current-system/sw/bin/python3; do
        case $name in *-config | *-intel64 | *.py) continue ;; esac
        ask "$name" python
    done
fi
if command -v nvidia-smi >/dev/null 2>&1; then
    nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null </dev/null |
        while IFS= read -r name; do say gpu "$name"; done
fi
:
