"""The storyteller: one random text, either a story or a small talk with a bee."""

from random import Random

from asking import ask_for
from cast import cast_of_plot, choose_cast, describe_hero
from grammar import expand
from plots import Opening, Plot, all_plots, choose_opening, paragraphs
from words import COMMON_TRAITS

COMPANIES = 2


def first_day(plot: Plot, opening: Opening) -> str:
    """Return how a plot begins after an opening: on one of many days, or on the day told of."""
    if not opening.is_timeless:
        return "[That day|That day|That morning|Soon after that|A little later]"
    if plot.season == "autumn":
        return "[One autumn day|One day|One cool morning]"
    return "[One day|One day|One morning|One summer day|One fine day]"


def tell_plot(plot: Plot, slots: dict[str, str], random: Random) -> list[str]:
    """Tell what happens in a plot, beat after beat; `-` leaves one out."""
    told = [expand(random.choice(beat), slots, random) for beat in plot.beats]
    return [beat for beat in told if beat != "-"]


def tell_little(slots: dict[str, str], random: Random) -> list[str]:
    """Tell one of the shortest stories, which fit any worker on a warm day."""
    return [expand(random.choice(paragraphs("shorts"))[0], slots, random)]


def write_tale(random: Random) -> str:
    """Write a story, often after somebody asked for it, and now and then from its middle on.

    The middle is for prompts that begin there.
    """
    number = random.randrange(len(all_plots()))
    plot = all_plots()[number]
    kind = "drone" if plot.kind == "drone" else "bee"
    slots = cast_of_plot(number, random.randrange(COMPANIES), drone=kind == "drone")
    trait = random.choice(plot.traits if random.random() < 0.7 else COMMON_TRAITS)
    opening = choose_opening(plot, random)
    slots["day"] = first_day(plot, opening)
    is_little = plot.season == "warm" and plot.kind == "worker" and random.random() < 0.25
    slots |= describe_hero(trait, kind, random)
    chance = random.random()
    asked = ""
    if chance < 0.4:
        asked = ask_for(None if is_little else plot, slots, random)
        mentioned = [known for known in plot.traits if f" {known} " in asked]
        if mentioned and trait not in mentioned:
            # The request is for a hero of another character than was chosen: do as asked.
            slots |= describe_hero(mentioned[0], kind, random)
    told = [expand(opening.template, slots, random)]
    told += tell_little(slots, random) if is_little else tell_plot(plot, slots, random)
    if random.random() < 0.4:
        told.append(expand(random.choice(paragraphs("endings")[0]), slots, random))
    if chance > 0.92:
        told = told[random.randint(1, len(told) - 1) :]
    return asked + " ".join(told)


def write_exchange(name: str, random: Random) -> str:
    """Write a question or a greeting, and what a bee says to it; now and then only the answer.

    A line that begins with `~` may be left out.
    """
    questions, *lines = random.choice(paragraphs(name))
    slots = choose_cast(random)
    kept = [line.lstrip("~") for line in lines if line[0] != "~" or random.random() < 0.6]
    answer = " ".join(expand(line, slots, random) for line in kept)
    if name != "off_topic" and random.random() < 0.12:
        return answer
    question = expand(random.choice(questions.split(" | ")), slots, random)
    if random.random() < 0.15:
        question = question[0].lower() + question[1:]
    if random.random() < 0.2:
        question = question.rstrip("?.")
    elif question[-1].isalnum():
        question += random.choice(["", ".", "!"])
    return question + random.choice([" ", " ", " ", "\n"]) + answer


def write_story(random: Random) -> str:
    """Write one text of 20 to 300 tokens."""
    (name,) = random.choices(["tale", "questions", "small_talk", "off_topic"], weights=[72, 15, 7, 6])
    return write_tale(random) if name == "tale" else write_exchange(name, random)
