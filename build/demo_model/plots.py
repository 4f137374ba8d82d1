"""The text files: plots, opening sentences, and paragraphs of any kind."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from grammar import split_paragraphs

TEXT = Path(__file__).with_name("text")

# Which sections of openings.txt may begin a plot of each season.
SECTIONS = {
    "warm": ("any", "morning", "outdoors"),
    "inside": ("any", "morning"),
    "autumn": ("any", "autumn"),
    "winter": ("winter",),
    "visitor": ("any", "visitor", "visitor", "visitor"),
    "person": ("any", "person", "person", "person"),
}
# After these a plot begins with `One day`; the others tell of a day already.
TIMELESS = ("any", "visitor", "person")


@dataclass(frozen=True)
class Plot:
    """What happens: each beat is a list of ways to tell it, of which one is taken."""

    kind: str
    season: str
    traits: list[str]
    about: list[str]
    beats: list[list[str]]


@dataclass(frozen=True)
class Opening:
    """The first words of a story, and whether they leave the day open."""

    template: str
    is_timeless: bool


def read_plot(text: str) -> Plot:
    """Read a plot: a head of `key: value` lines, then a paragraph for each beat."""
    head, *beats = split_paragraphs(text)
    fields = dict(line.split(": ", 1) for line in head)
    return Plot(
        kind=fields.get("kind", "worker"),
        season=fields.get("season", "warm"),
        traits=fields["traits"].split(" | "),
        about=fields["about"].split(" | "),
        beats=beats,
    )


@cache
def all_plots() -> list[Plot]:
    """Return every plot, in the order of the files' names, so that a seed is enough."""
    return [read_plot(path.read_text()) for path in sorted((TEXT / "plots").glob("*.txt"))]


@cache
def paragraphs(name: str) -> list[list[str]]:
    """Return the paragraphs of a text file."""
    return split_paragraphs((TEXT / f"{name}.txt").read_text())


@cache
def openings(section: str) -> list[Opening]:
    """Return the openings in one section of the file."""
    sections = {lines[0].strip("= "): lines[1:] for lines in paragraphs("openings")}
    return [Opening(line, section in TIMELESS) for line in sections[section]]


def choose_opening(plot: Plot, random: Random) -> Opening:
    """Return an opening after which this plot makes sense."""
    return random.choice(openings(random.choice(SECTIONS[plot.season])))
