"""Runs the project's checks and tests, after setting up what they need; pytest's own line comes last.

python3 build/test.py                       everything
python3 build/test.py unit features         some steps
python3 build/test.py s34                   one scenario, by its tag
python3 build/test.py --full                also what takes long: all 36 cases of the kill matrix, 5000 simulations
python3 build/test.py --full clients        a part of that: more clients of OpenAI's interface, with a larger model
python3 build/test.py unit -- -k slots -x   what follows -- is pytest's
python3 build/test.py --setup-only          only .venv with the engine and the tools
"""

import argparse
import os
import re
import subprocess
import sys
import time

if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    # Before the first import that an older Python does not have.
    sys.exit(f"rbee: CPython 3.11 to 3.14 is needed to test; this is Python {'.'.join(map(str, sys.version_info[:2]))}")

import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clients
import environment
import llama
import newest_python
import openssh
import test_data
from progress import StepFailed

ROOT = Path(__file__).resolve().parent.parent

CHECKS = {
    "format": ["ruff", "format", "--check", "--quiet", "."],
    "lint": ["ruff", "check", "--quiet", "--output-format=concise", "."],
    "types": ["mypy"],
    "contracts": ["lint-imports", "--no-logo"],
}
TESTS = {
    "unit": "tests/unit",
    "simulation": "tests/simulation",
    "net": "tests/net",
    "process": "tests/process",
    "clients": "tests/clients",
    "contract": "tests/contract",
    "features": "features",
}
STEPS = [*CHECKS, *TESTS, "zipapp"]
SCENARIO = re.compile(r"@?([sh]\d+)")


def main() -> int:
    """Runs the chosen steps; returns 1 if any failed."""
    ours, for_pytest = _split(sys.argv[1:])
    arguments = _parse(ours)
    environment.enter()
    os.chdir(ROOT)
    if arguments.setup_only:
        return 0
    tags = [match[1] for step in arguments.steps if (match := SCENARIO.fullmatch(step))]
    steps = [step for step in arguments.steps if step in STEPS] or (["features"] if tags else STEPS)
    checks = {name: command for name, command in CHECKS.items() if name in steps}
    if {"zipapp", "features"} & set(steps):
        checks["zipapp"] = [sys.executable, "build/zipapp.py"]
    with ThreadPoolExecutor() as beside_each_other:
        results = beside_each_other.map(_check, checks.keys(), checks.values())
        _fetch(_needed(steps, arguments.full))
        done = dict(zip(checks, results, strict=True))
    failed = [name for name, passed in done.items() if not passed]
    if "zipapp" in failed:
        # The file that an earlier build left would pass or fail for reasons that are not in this tree.
        steps = [step for step in steps if step != "features"]
    if failed:
        print(f"failed: {', '.join(failed)}", flush=True)
    if {"net", "process", "features"} & set(steps) and (missing := openssh.ensure()):
        # The tests that need it fail, each with the same advice.
        print(missing, flush=True)
    if "features" in steps and (missing := newest_python.ensure()):
        print(missing, flush=True)
    paths = [path for name, path in TESTS.items() if name in steps and (ROOT / path).is_dir()]
    if arguments.full and any(path.startswith("tests/") for path in paths):
        for_pytest = ["--full", *for_pytest]
    passed = not paths or _test(paths, tags, for_pytest)
    return 0 if passed and not failed else 1


def _needed(steps: list[str], is_full: bool) -> dict[str, Callable[[], Path]]:
    """Returns what the tests of these steps need and find by a variable, and what fetches it."""
    found: dict[str, Callable[[], Path]] = {}
    if {"unit", "net"} & set(steps):
        found["RBEE_TEST_TEMPLATES"] = llama.chat_templates
    if "net" in steps:
        found["RBEE_TEST_SCHEMAS"] = test_data.schemas
    if "clients" in steps:
        found["RBEE_TEST_CLIENTS"] = lambda: clients.python(clients.FEW)
    if "clients" in steps and is_full:
        found["RBEE_TEST_ALL_CLIENTS"] = lambda: clients.python(clients.ALL)
        found["RBEE_TEST_NODE"] = clients.node_modules
        found["RBEE_TEST_MODEL"] = test_data.model
    return found


def _fetch(needed: dict[str, Callable[[], Path]]) -> None:
    """Fetches what tests need, once; without it those fail that need it."""
    for name, fetch in needed.items():
        try:
            os.environ[name] = str(fetch())
        except StepFailed as exc:
            print(exc, flush=True)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Divides the arguments into ours and, after a double dash, pytest's."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "steps", nargs="*", metavar="STEP", help="a step's name or a scenario's tag (default: all steps)"
    )
    parser.add_argument("--full", action="store_true", help="all of the kill matrix (36 cases, not 12), 5000 seeds")
    parser.add_argument("--setup-only", action="store_true", help="make .venv ready and run nothing")
    parsed = parser.parse_args(arguments)
    for step in parsed.steps:
        if step not in STEPS and not SCENARIO.fullmatch(step):
            parser.error(f"no step is called {step}; there are {' '.join(STEPS)}, and tags of scenarios like s34")
    return parsed


def _check(name: str, command: list[str]) -> bool:
    """Runs one step in silence; says in a line how it went, and shows what it printed only if it failed."""
    started = time.monotonic()
    done = subprocess.run(command, env=_environment(), stdout=subprocess.PIPE, text=True, check=False)
    verdict = "FAILED" if done.returncode else "ok"
    told = f"\n{done.stdout.rstrip()}" if done.returncode or name == "zipapp" else ""
    print(f"{name:<10} {verdict:<6} {time.monotonic() - started:6.1f} s{told}", flush=True)
    return not done.returncode


def _test(paths: list[str], tags: list[str], for_pytest: list[str]) -> bool:
    """Runs pytest once over everything, on all processors, so that its closing line counts everything."""
    command = ["pytest", *_parallel(for_pytest), *paths, *(["-m", " or ".join(tags)] if tags else []), *for_pytest]
    return not subprocess.run(command, env=_environment(), check=False).returncode


def _parallel(for_pytest: list[str]) -> list[str]:
    """Returns the options by which processes share the tests; nothing for a debugger."""
    if {"--pdb", "--trace", "-s", "-n"} & set(for_pytest):
        return []
    # Daemons' tests wait half of their time: with three processes on two processors a fifth of these stayed idle.
    number = min(len(os.sched_getaffinity(0)), 4) * 2
    # Groups come in the order of tests/kit/schedule.py, and not by how many tests they hold.
    return ["-n", str(number), "--dist=loadgroup", "--no-loadscope-reorder"]


def _environment() -> dict[str, str]:
    plan = tomllib.loads((ROOT / "shiv.toml").read_text("utf-8"))
    # Where Python may keep no compiled modules, each daemon compiles ours anew: 0.2 s, some thousand times.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return inherited | {
        "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "RBEE_PYZ": str(ROOT / plan["file"]["path"]),
        "RBEE_TEST_PYTHONS": str(newest_python.BIN),
    }


if __name__ == "__main__":
    sys.exit(main())
