# Says what this machine is; run by `sh -s` over SSH, on machines that may have only a POSIX shell.
say home "$HOME"
say system "$(uname -s)"
say machine "$(uname -m)"
say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
# Of each Python: its version, the modules that it was built without, and its own path, not that of a shim or a venv:
# those may be gone in another shell or on another day.
asked='import sys
lacks = []
for name in ("ctypes", "sqlite3", "ssl", "zlib"):
    try:
        __import__(name)
    except ImportError:
        lacks.append(name)
path = getattr(sys, "_base_executable", None) or sys.executable
version = "%d.%d.%d" % sys.version_info[:3]
print("%s %s %s %s" % (sys.implementation.name, version, ",".join(lacks) or "-", path))'
for name in python3.14 python3.13 python3.12 python3.11 python3 \
    "$HOME"/.pyenv/versions/*/bin/python3 /usr/local/bin/python3.* /opt/python*/bin/python3; do
    path=$(command -v "$name" 2>/dev/null) || continue
    said=$("$path" -c "$asked" 2>/dev/null </dev/null) || continue
    say python "$said"
done
if command -v nvidia-smi >/dev/null 2>&1; then
    nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null </dev/null |
        while IFS= read -r name; do say gpu "$name"; done
fi
:
