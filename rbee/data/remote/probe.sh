# Tells what a machine is: run by `sh -s` over SSH, on machines that may have nothing but a POSIX shell.
say home "$HOME"
say system "$(uname -s)"
say machine "$(uname -m)"
say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
for name in python3.14 python3.13 python3.12 python3.11 python3 \
    "$HOME"/.pyenv/versions/*/bin/python3 /usr/local/bin/python3.* /opt/python*/bin/python3; do
    path=$(command -v "$name" 2>/dev/null) || continue
    version=$("$path" -c 'import sys; print("%s %d.%d.%d" % ((sys.implementation.name,) + sys.version_info[:3]))' \
        2>/dev/null) || continue
    say python "$version $path"
done
if command -v nvidia-smi >/dev/null 2>&1; then
    nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | while IFS= read -r name; do say gpu "$name"; done
fi
