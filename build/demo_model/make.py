"""Make the bundled model again: stories, tokenizer, training, export, checks, card.

Run it as `python3 build/demo_model/make.py`. It needs two processor cores and about half an hour.
"""

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "rbee" / "data"
FILE = DATA / "bee-stories.Q8_0.gguf"
CARD = DATA / "bee-stories.md"

SEED = 20
STORIES_FOR_TOKENIZER = 20_000
PARAMETERS = range(3_000_000, 10_000_001)
LARGEST_FILE = 8_000_000
SMALLEST_CONTEXT = 512

PROMPTS = (
    "Once upon a time",
    "The queen bee",
    "Tell me a story about a lazy drone.",
    "Tell me a story about a small robot.",
    "Why do bees dance?",
    "Hello",
)


def run_in_own_venv() -> None:
    """Replace this process by one that has PyTorch, in a venv outside the checkout.

    The pinned versions are installed on the first run and kept.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "rbee" / "demo_model"
    python = home / "bin" / "python"
    if Path(sys.prefix) == home:
        raise SystemExit(f"PyTorch does not import in {home}; delete that folder and try again")
    if not (home / "ready").exists():
        print(f"installing PyTorch into {home}", flush=True)
        venv.create(home, with_pip=True, clear=True)
        requirements = str(HERE / "requirements.txt")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        (home / "ready").touch()
    os.execv(python, [str(python), str(Path(__file__).resolve())])


def make() -> None:
    """Make the model and its card; a model outside the bounds raises ValueError."""
    # Imported here, because these modules need PyTorch, which the first process may not have.
    from random import Random

    import torch
    from card import write_card
    from corpus import batches, write_stories
    from export import write_model
    from model import Llama, Shape
    from sample import go_on
    from tokenizer import learn, vocabulary
    from train import THREADS, Plan, train

    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    random = Random(SEED)
    plan = Plan()

    print("learning the tokenizer", flush=True)
    tokenizer = learn(write_stories(random, STORIES_FOR_TOKENIZER), Shape().vocabulary)
    model = Llama(Shape())
    print(f"training {model.parameter_count():,} parameters", flush=True)
    stories = batches(tokenizer, random, plan.tokens_per_step, model.shape.context)
    outcome = train(model, plan, stories)
    print(f"held-out loss {outcome.held_out_loss:.4f}", flush=True)

    DATA.mkdir(exist_ok=True)
    unfinished = FILE.with_suffix(".part")
    write_model(unfinished, model, vocabulary(tokenizer))
    check(unfinished.stat().st_size, model.parameter_count(), model.shape.context)
    unfinished.replace(FILE)

    samples = {}
    for prompt in PROMPTS:
        text, ended = go_on(model, tokenizer, prompt)
        samples[prompt] = text.removeprefix(prompt) + ("" if ended else " …")
        print(f"\n{text}", flush=True)
    write_card(CARD, FILE, model, plan, outcome, SEED, samples)
    print(f"\nwrote {FILE.name} and {CARD.name} after {outcome.seconds / 60:.1f} minutes of training")


def check(size: int, parameters: int, context: int) -> None:
    """Raise ValueError where the model is not what rbee may bundle."""
    if parameters not in PARAMETERS:
        raise ValueError(f"{parameters:,} parameters are too few or too many")
    if size > LARGEST_FILE:
        raise ValueError(f"the file has {size:,} bytes, more than {LARGEST_FILE:,}")
    if context < SMALLEST_CONTEXT:
        raise ValueError(f"a context of {context} tokens is too short")


if __name__ == "__main__":
    # Threads that wait for each other asleep, not spinning, share the cores with other programs;
    # spinning made training some three times slower beside a compiler.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if importlib.util.find_spec("torch") is None:
        run_in_own_venv()
    make()
