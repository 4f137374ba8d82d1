"""Measures what people wait for, beside llama-server, which is built once from the engine's own source archive.

python3 build/bench/serving.py                      all rows, five rounds
python3 build/bench/serving.py decode second-turn   these rows
python3 build/bench/serving.py --plot docs/plots    plots, and how cost grows

Both sides run on the same file, with the same slots, context and threads, and are asked in turns with prompts of as
many tokens, greedily; no prompt is asked twice, but where the row is about that. Each number is a median, and `gain`
says how many times better a way is than the baseline. `others` is what other programs took of the processors while
both sides rested: above a few percent, only ratios mean something, and hardly those.
"""

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "build"), str(Path(__file__).parent)]

import environment  # noqa: E402

environment.enter()

from comparison import growth, llama_server, models, more_rows, rows  # noqa: E402
from comparison.measuring import Found, Options, machine_state  # noqa: E402
from comparison.table import lines  # noqa: E402

from progress import exit_code  # noqa: E402

ROWS = {row.name: row for row in (*rows.ROWS, *more_rows.ROWS)}


def main() -> int:
    """Print the table; returns 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--model", action="append", metavar="NAME", help=f"{', '.join(models.NAMES)} or a file, in place of the row's"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--turns", type=int, default=20, metavar="N", help="of the agent's loop; default: 20")
    parser.add_argument("--kv-unified", action="store_true", help="llama-server with one cache for all slots")
    parser.add_argument("--llama-server", type=Path, metavar="FILE", help="this one, in place of one that is built")
    parser.add_argument("--ours-only", action="store_true", help="without llama-server")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all that was measured, too")
    parser.add_argument(
        "--plot", type=Path, metavar="DIR", help="in place of the rows: how cost grows, with plots there"
    )
    given = parser.parse_args()
    if wrong := [name for name in given.row if name not in ROWS]:
        parser.error(f"no row {', '.join(wrong)}; there are {', '.join(ROWS)}")
    files: dict[str, Path] = {}
    program: Path | None = given.llama_server
    if given.plot:
        given.row, given.model = ["decode"], given.model or [rows.SMALL]
    chosen = [(ROWS[name], model) for name in given.row or ROWS for model in given.model or ROWS[name].models]

    def prepare() -> None:
        nonlocal program
        files.update({model: models.find(model) for _, model in chosen})
        program = None if given.ours_only else program or llama_server.program()

    if code := exit_code(prepare):
        return code
    further = ("--kv-unified",) if given.kv_unified else ()
    options = Options(program, further, given.rounds, given.threads, given.turns)
    print(f"{machine_state()}; {options.rounds} rounds, {options.threads} threads {' '.join(further)}", flush=True)
    if given.plot:
        growth.run(given.plot, *next(iter(files.items())), options)
        return 0
    is_good, all_found = True, []
    for row, model in chosen:
        found = Found(row.name, model, row.baseline)
        row.measure(found, files[model], options)
        all_found.append(found)
        for line in lines(row, found):
            print(line, flush=True)
            is_good &= "MISSED" not in line
    print(machine_state())
    if given.json:
        values = [{"row": found.row, "model": found.model, "values": found.values} for found in all_found]
        given.json.write_text(json.dumps(values, indent=1) + "\n")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
