"""Builds the llama-cpp-python wheel once, and keeps it outside the checkout.

The wheel's own build makes several copies of every library, installs headers and tools, and needs numpy. So llama.cpp
is compiled here by cmake straight from the locked source archive, and packed with the Python files of that archive
into a wheel that holds each library once.
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import deque
from pathlib import Path
from typing import TextIO

import cache
import engine_patch
import engine_wheel
from progress import Progress, StepFailed, exit_code

HERE = Path(__file__).resolve().parent
SOURCE_LOCK = HERE / "locks" / "llama.txt"
TOOLS_LOCK = HERE / "locks" / "engine.txt"
RECIPE = HERE / "engine.toml"
OLDER_GLIBC = HERE / "older_glibc.c"
LOGITS = HERE / "logits.c"

COMPILERS = {"C": ("CC", ("cc", "gcc", "clang")), "C++": ("CXX", ("c++", "g++", "clang++"))}
NINJA_STEP = re.compile(r"^\[(\d+)/(\d+)\]")
TAIL_LINES = 15
PROCESSOR_MINUTES = 17
"""What compiling took on two processors (2 x 8.6 minutes)."""


def wheel() -> Path:
    """The engine's wheel, built first if the cache does not hold it. Raises StepFailed."""
    home = cache.folder() / "engine" / _key()
    cache.remove_abandoned(home.parent)
    if not (found := _find(home)):
        with cache.lock(home.parent / f".{home.name}.lock"):
            found = _find(home) or _build(home)
    cache.remove_unused(home.parent, home)
    return found


def chat_templates() -> Path:
    """The folder of the chat templates that come with llama.cpp's source, which the tests read. Raises StepFailed."""
    home = _templates()
    if not home.is_dir():
        with cache.lock(home.parent / f".{home.name}.lock"):
            if not home.is_dir():
                with tempfile.TemporaryDirectory(prefix=f".{home.name}-", dir=home.parent) as scratch:
                    log = home.parent / f"{home.name}.log"
                    with log.open("w", encoding="utf-8") as log_file:
                        _keep_templates(fetch(Runner(log_file, log, _environment(Path(scratch))), Path(scratch)))
    return home


def _templates() -> Path:
    return cache.folder() / "templates" / version()


def _keep_templates(source: Path) -> None:
    home = _templates()
    home.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=f".{home.name}-", dir=home.parent) as scratch:
        shutil.copytree(source / "vendor" / "llama.cpp" / "models" / "templates", Path(scratch) / "new")
        with contextlib.suppress(OSError):  # another process has kept them meanwhile
            (Path(scratch) / "new").rename(home)


def _key() -> str:
    recipe = tomllib.loads(RECIPE.read_text("utf-8"))
    parts = [
        recipe,
        OLDER_GLIBC.read_text("utf-8"),
        LOGITS.read_text("utf-8"),
        SOURCE_LOCK.read_text("utf-8"),
        engine_wheel.LAYOUT,
        engine_patch.REPLACEMENTS,
        engine_patch.ADDED,
    ]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{version()}-{digest[:16]}"


def version() -> str:
    match = re.search(r"^llama-cpp-python==(\S+)", SOURCE_LOCK.read_text("utf-8"), re.MULTILINE)
    assert match, f"{SOURCE_LOCK} pins no llama-cpp-python"
    return match[1]


def _find(home: Path) -> Path | None:
    return next(iter(home.glob("*.whl")), None)


def _build(home: Path) -> Path:
    compilers = {language: find_compiler(language) for language in COMPILERS}
    log = home.parent / f"{home.name}.log"
    # Beside its final place, so that the last step is a rename; /tmp may be small or noexec.
    with tempfile.TemporaryDirectory(prefix=f".{home.name}-", dir=home.parent) as scratch:
        work = Path(scratch)
        with log.open("w", encoding="utf-8") as log_file:
            runner = Runner(log_file, log, _environment(work))
            older_glibc = ["-O2", "-fPIC", "-c", str(OLDER_GLIBC), "-o", str(_extra_object(work))]
            runner.run("the C compiler", [compilers["C"], *older_glibc])
            source = fetch(runner, work)
            _keep_templates(source)
            libraries = _compile(runner, source, work / "build")
            logits = ["-O3", "-fPIC", "-shared", str(LOGITS), "-o", str(libraries / engine_wheel.LOGITS), "-lm"]
            runner.run("the C compiler", [compilers["C"], "-Wl,--strip-all", *logits])
        out = work / "out"
        out.mkdir()
        packed = engine_wheel.pack(source, libraries, version(), out)
        out.rename(home)
    return home / packed.name


def find_compiler(language: str) -> str:
    variable, names = COMPILERS[language]
    wanted = [os.environ[variable].split()[0]] if os.environ.get(variable) else names
    if found := next(filter(shutil.which, wanted), None):
        return found
    raise StepFailed(
        f"building the engine (llama.cpp) needs a {language} compiler; looked for {', '.join(wanted)} and found none",
        "apt install g++ (Debian, Ubuntu), dnf install gcc-c++ libstdc++-static (Fedora), then run this again",
    )


def _extra_object(work: Path) -> Path:
    return work / "older_glibc.o"


def _environment(work: Path) -> dict[str, str]:
    linker = [*tomllib.loads(RECIPE.read_text("utf-8"))["linker"]["flags"], str(_extra_object(work))]
    # Without the map each file's full path is in the libraries, and no two builds are alike. What the user has in
    # these variables stays out: -march=native there would make an engine for this host alone.
    compiler = shlex.quote(f"-ffile-prefix-map={work}=.")
    return tool_environment(work) | {"CFLAGS": compiler, "CXXFLAGS": compiler, "LDFLAGS": shlex.join(linker)}


def tool_environment(work: Path) -> dict[str, str]:
    """The environment of the build tools that `fetch` installs in `work`."""
    return os.environ | {
        "PATH": f"{work / 'tools' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # llama.cpp asks git for its version: it must not find the repository of somebody's home.
        "GIT_CEILING_DIRECTORIES": str(work.parent),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_PROGRESS_BAR": "off",
        "PYTHONUNBUFFERED": "1",
    }


def fetch(runner: "Runner", work: Path) -> Path:
    """Installs the build tools, fetches the locked source archive, and unpacks it."""
    python = work / "tools" / "bin" / "python"
    with Progress("fetching the engine's source (llama.cpp, 77 MB)") as progress:
        runner.run("python3 -m venv", [sys.executable, "-m", "venv", str(work / "tools")])
        progress.step(1, 3)
        pip = [str(python), "-m", "pip"]
        locked = ["--require-hashes", "--no-deps", "-r"]
        runner.run("pip install", [*pip, "install", "--only-binary=:all:", *locked, str(TOOLS_LOCK)])
        progress.step(2, 3)
        # pip asks even a source that is only fetched for its metadata. With isolation it would
        # fetch a build system for that, which no lock pins.
        fetch = [*pip, "download", "--no-binary=:all:", "--no-build-isolation", "-d", str(work)]
        runner.run("pip download", [*fetch, *locked, str(SOURCE_LOCK)])
        progress.step(3, 3)
    (archive,) = work.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(work / "unpacked", filter="data")
    archive.unlink()
    (source,) = (work / "unpacked").iterdir()
    return source


def _compile(runner: "Runner", source: Path, build: Path) -> Path:
    """Compiles llama.cpp; returns the folder that holds its libraries."""
    flags = tomllib.loads(RECIPE.read_text("utf-8"))["cmake"]
    defines = [f"-D{name}={value}" for name, value in flags.items()]
    tree = str(source / "vendor" / "llama.cpp")
    engine_patch.apply(Path(tree))
    minutes = max(1, round(PROCESSOR_MINUTES / len(os.sched_getaffinity(0))))
    with Progress(f"building the engine (llama.cpp), about {minutes} min, once") as progress:
        runner.run("cmake", ["cmake", "-S", tree, "-B", str(build), "-G", "Ninja", *defines])
        # Not by way of cmake, which would leave ninja and its compilers running when it is told to end.
        runner.run("ninja", ["ninja", "-C", str(build), "llama"], progress)
    return build / "bin"


class Runner:
    """Runs the build's commands, all into one log."""

    def __init__(self, log_file: TextIO, log: Path, environment: dict[str, str]) -> None:
        self._log_file = log_file
        self._log = log
        self._environment = environment

    def run(self, name: str, command: list[str], progress: Progress | None = None) -> None:
        """Runs one command to its end; a failure carries the last lines it printed."""
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        with subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout
            try:
                for line in process.stdout:
                    self._log_file.write(line)
                    tail.append(line)
                    if progress and (match := NINJA_STEP.match(line)):
                        progress.step(int(match[1]), int(match[2]))
            except BaseException:
                process.terminate()  # we were told to end; what it has written is removed
                raise
        if process.returncode:
            raise StepFailed(
                f"building the engine failed: {name} ended with {process.returncode}\n"
                + "".join(f"    {line[:200].rstrip()}\n" for line in tail).rstrip(),
                f"the whole log is {self._log}",
            )


if __name__ == "__main__":
    sys.exit(exit_code(lambda: print(wheel())))
