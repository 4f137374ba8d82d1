"""Measures how cost grows with clients, with a prompt's length and with a conversation's, and draws it."""

from pathlib import Path

from comparison.client import Way, ask, together
from comparison.measuring import Found, Options, Round, compare, machine_state
from comparison.models import Words
from comparison.rows import LLAMA, QUEEN, Conversation
from comparison.sides import Load
from comparison.svg import Chart, draw

CLIENTS = (1, 2, 4, 8, 16)
PROMPTS = (64, 128, 256, 512, 1024, 2048)
TURNS = 8
EACH = 128
"""Tokens that each turn of a conversation brings."""
NAMES = {QUEEN: "rbee", LLAMA: LLAMA}


async def _clients(way: Way, words: Words) -> dict[str, float]:
    found: dict[str, float] = {}
    for count in CLIENTS:
        answers = await together(way, [way.text(words.text(64), 48) for _ in range(count)])
        seconds = max(answer.last for answer in answers) - min(answer.asked for answer in answers)
        found[f"first {count}"] = max(answer.first for answer in answers)
        found[f"rate {count}"] = sum(answer.tokens for answer in answers) / seconds
    return found


async def _prompts(way: Way, words: Words) -> dict[str, float]:
    return {f"first {count}": (await ask(way, way.text(words.text(count), 2))).first for count in PROMPTS}


async def _turns(way: Way, words: Words) -> dict[str, float]:
    conversation = Conversation(words.text(EACH))
    found: dict[str, float] = {}
    for turn in range(1, TURNS + 1):
        found[f"first {turn}"] = await conversation.turn(way, 16)
        conversation.say(words.text(EACH))
    return found


def run(folder: Path, name: str, model: Path, options: Options) -> None:
    """Write the plots into a folder, and print the three tables."""
    folder.mkdir(parents=True, exist_ok=True)

    def measured(measure: Round, slots: int) -> Found:
        found = Found("growth", name, LLAMA)
        compare(found, Load(model, slots, 4096 if slots == 1 else 1024, options.threads), options, measure, (QUEEN,))
        return found

    clients, prompts, turns = measured(_clients, max(CLIENTS)), measured(_prompts, 1), measured(_turns, 1)
    where = f"{name}, {options.threads} threads"
    charts = {
        "first-token-clients": _chart(
            clients, "first", CLIENTS, "last first token", "clients at once", "seconds", where
        ),
        "rate-streams": _chart(clients, "rate", CLIENTS, "all streams together", "streams", "tokens/s", where),
        "first-token-prompt": _chart(
            prompts, "first", PROMPTS, "first token", "tokens of the prompt", "seconds", where
        ),
        "first-token-turn": _chart(
            turns,
            "first",
            range(1, TURNS + 1),
            "first token",
            f"turn of a conversation, {EACH} tokens each",
            "seconds",
            where,
        ),
    }
    for file, chart in charts.items():
        (folder / f"{file}.svg").write_text(draw(chart), encoding="utf-8")
        print(f"\n{chart.title}: {chart.y_label} over {chart.x_label}")
        print(f"    {'':>8}" + "".join(f"{line:>16}" for line in chart.lines))
        for row in zip(*chart.lines.values(), strict=True):
            print(f"    {row[0][0]:>8g}" + "".join(f"{value:>16.3f}" for _, value in row))
    print(f"\nplots in {folder}; {machine_state()}")


def _chart(found: Found, key: str, xs: "tuple[int, ...] | range", title: str, x: str, y: str, where: str) -> Chart:
    lines = {
        shown: [(at, found.median(f"{key} {at}", way) or 0.0) for at in xs]
        for way, shown in NAMES.items()
        if found.median(f"{key} {xs[0]}", way) is not None
    }
    return Chart(f"{title} ({where})", x, y, lines, is_log_x=isinstance(xs, tuple))
