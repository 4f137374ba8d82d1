"""Reads headers in forks of one process, as `rbee model-header` does in a process of its own, and says what each took.

Takes on stdin lines of arguments, with tabs between them, and prints for each line [exit code, most bytes of memory,
seconds of the processor, what was printed].
"""

from __future__ import annotations

import json
import os
import sys

from rbee.worker.llama import gguf_file, header, library


def main() -> None:
    gguf_file.library()  # once: a child has what its parent has loaded
    library.load()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(read(line.rstrip("\n").split("\t"))) + "\n")
        sys.stdout.flush()


def read(arguments: list[str]) -> tuple[int, int, float, str]:
    output, writes = os.pipe()
    if not (pid := os.fork()):
        os.dup2(writes, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        code = 99
        try:
            code = header.main(arguments)
            sys.stdout.flush()
        finally:
            os._exit(code)
    os.close(writes)
    with os.fdopen(output, "rb") as file:
        printed = file.read()
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime, printed.decode()


if __name__ == "__main__":
    main()
