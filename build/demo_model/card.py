"""The model card: what the bundled model is, in figures of the run that made it."""

from hashlib import sha256
from pathlib import Path
from string import Template

from model import Llama
from train import THREADS, Outcome, Plan

CARD = Template("""\
# bee-stories

The model that comes with rbee (`builtin:bee-stories`): small enough to carry along, real enough to
try everything with. It tells little stories about bees, answers a few questions about them, and
ends by itself. It knows nothing else, and what it says about the world beyond the hive is not to be
relied on.

| | |
|---|---|
| file | `$file`, $size bytes |
| sha256 | `$digest` |
| architecture | `llama`, $parameters parameters, Q8_0 (norms in F32) |
| shape | width $width, $layers layers, $heads heads of $head_width, feed-forward $feed_forward; tied embedding |
| context | $context tokens |
| tokenizer | byte-level BPE (`gpt2`, pre-tokeniser `gpt-2`), $vocabulary tokens; any text can be encoded |
| licence | that of rbee |

## Data

There is no data set. A program, `build/demo_model/stories.py`, writes the stories from texts of our
own: plots told beat by beat, openings, endings, questions, greetings, each with many alternatives, and names,
flowers and places that stay the same through one story. Each story is written once, used once and
thrown away; nothing comes from anywhere else.

## Training

`python3 build/demo_model/make.py` made the file, this card included, on a CPU with $threads threads in
$minutes minutes of training.

| | |
|---|---|
| seed | $seed |
| stories seen | $tokens tokens in $steps steps, none of them twice |
| training loss | $training_loss nats per token (mean of the last steps) |
| held-out loss | $held_out_loss nats per token on $held_out_batches batches of stories kept aside |
| optimiser | Muon for the matrices, AdamW for embedding and norms; warm-up, then a cosine |
| software | $software |

The same seed gives the same stories, the same first weights and the same order. Another processor
or another number of threads rounds sums differently, so there the file can differ in its bits.

## Samples

By the model before it was rounded to 8 bits, at temperature 0.7, the prompt in bold; not selected.

$samples
""")


def write_card(
    path: Path,
    file: Path,
    model: Llama,
    plan: Plan,
    outcome: Outcome,
    seed: int,
    samples: dict[str, str],
) -> None:
    """Write the card of `file` to `path`; `samples` maps each prompt to what the model added."""
    content = file.read_bytes()
    software = Path(__file__).with_name("requirements.txt").read_text().split()
    shape = model.shape
    figures = {
        "file": file.name,
        "size": f"{len(content):,}",
        "digest": sha256(content).hexdigest(),
        "parameters": f"{model.parameter_count():,}",
        "width": shape.width,
        "layers": shape.layers,
        "heads": shape.heads,
        "head_width": shape.head_width,
        "feed_forward": shape.feed_forward,
        "context": shape.context,
        "vocabulary": shape.vocabulary,
        "threads": THREADS,
        "minutes": f"{outcome.seconds / 60:.0f}",
        "seed": seed,
        "tokens": f"{outcome.tokens:,}",
        "steps": f"{plan.steps:,}",
        "training_loss": f"{outcome.training_loss:.4f}",
        "held_out_loss": f"{outcome.held_out_loss:.4f}",
        "held_out_batches": plan.held_out_batches,
        "software": ", ".join(software),
        "samples": "\n\n".join(f"> **{prompt}**{text}" for prompt, text in samples.items()),
    }
    path.write_text(CARD.substitute(figures))
