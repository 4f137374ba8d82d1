"""The cast of a text: who and what it is about, as slots that stay the same to its end."""

from random import Random

from grammar import expand, with_article
from words import (
    BEE_NAMES,
    BOYS,
    COMMON_TRAITS,
    CREATURES,
    DRONE_NAMES,
    ELDER_NAMES,
    FLOWERS,
    GIRLS,
    HOMES,
    LANDMARKS,
    LANDS,
    NOISES,
    NUMBERS,
    PLACES,
    TOPICS,
    VISITORS,
)

SHE = {"they": "she", "them": "her", "their": "her", "theirs": "hers"}
HE = {"they": "he", "them": "him", "their": "his", "theirs": "his"}
SIZES = ("little", "small", "tiny", "young", "fat", "old")


def name_bees(drone: bool, random: Random) -> dict[str, str]:
    """Name the hero, a sister and an old bee."""
    friend, worker = random.sample(BEE_NAMES, 2)
    return {
        "hero": random.choice(DRONE_NAMES) if drone else worker,
        "friend": friend,
        "elder": random.choice(ELDER_NAMES),
    }


def choose_surroundings(random: Random) -> dict[str, str]:
    """Choose where a story takes place and what grows there."""
    flower, flowers = random.choice(list(FLOWERS.items()))
    place = random.choice(PLACES)
    return {
        "home": random.choice(HOMES),
        "the_place": f"the {place}",
        "a_place": with_article(place),
        "landmark": random.choice(LANDMARKS),
        "flower": flower,
        "flowers": flowers,
        "creature": random.choice(CREATURES),
    }


def choose_guests(random: Random) -> dict[str, str]:
    """Choose who may come to the hive: somebody strange, and a child."""
    article, visitor = random.choice(VISITORS).split(" ", 1)
    if random.random() < 0.25:
        visitor = f"{random.choice(COMMON_TRAITS)} {visitor}"
        article = with_article(visitor).split()[0]
    girl = random.random() < 0.5
    pronouns = SHE if girl else HE
    return {
        "a_visitor": f"{article} {visitor}",
        "the_visitor": f"the {visitor}",
        "person": random.choice(GIRLS if girl else BOYS),
        "child": "girl" if girl else "boy",
        **{f"person_{word}": value for word, value in pronouns.items()},
    }


def choose_topics(random: Random) -> dict[str, str]:
    """Choose what people ask about that no bee knows."""
    topic, topics = random.choice(TOPICS).split(", ")
    return {
        "topic": topic,
        "topics": topics,
        "land": random.choice(LANDS),
        "number": f"[{'|'.join(NUMBERS)}]",
        "noise": f"[{'|'.join(NOISES)}]",
    }


def describe_hero(trait: str, kind: str, random: Random) -> dict[str, str]:
    """Describe the hero in a few words, such as `a brave little bee`."""
    size = "" if trait in SIZES else "[||little |young ]"
    bee = expand(f"{trait} {size}{kind}", {}, random)
    return {"kind": kind, "trait": trait, "bee": bee, "a_bee": with_article(bee)}


def cast_of_plot(number: int, company: int, drone: bool = False) -> dict[str, str]:
    """Return the cast of one of the two companies that play a plot: always the same one.

    To repeat a name that stands further up is more than so small a model learns in half an hour: with a random cast its
    heroes changed their names from one sentence to the next. What it learns well is who belongs to which story. Every
    hero plays in one story only, so that a prompt with a name in it leads to that story.
    """
    hero = 2 * number + company
    cast = choose_cast(Random(f"{number} {company}"), drone)
    names = DRONE_NAMES if drone else BEE_NAMES
    cast["hero"] = names[hero % len(names)]
    cast["friend"] = BEE_NAMES[(hero + len(BEE_NAMES) // 2) % len(BEE_NAMES)]
    return cast


def choose_cast(random: Random, drone: bool = False) -> dict[str, str]:
    """Choose everything but the hero's character."""
    return {
        **(HE if drone else SHE),
        **name_bees(drone, random),
        **choose_surroundings(random),
        **choose_guests(random),
        **choose_topics(random),
    }
