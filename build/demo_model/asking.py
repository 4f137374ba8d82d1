"""The requests: how people ask for a story."""

from random import Random

from grammar import expand
from plots import Plot

FOR_SOMETHING = """Tell me a story about
Tell me a story about
Tell me a story about
Write a story about
Write a story about
Write a short story about
Tell me a short story about
Tell me about
Can you tell me a story about
Please tell me a story about
Tell us a story about
I want to hear a story about
Make up a story about
Write a bedtime story about
A story about
Story about
Do you know a story about""".splitlines()

FOR_ANYTHING = """Tell me a story
Tell me a story
Tell me a story
Tell me a short story
Write a story
Write a short story
Write a short story
Write me a story
Please tell me a story
Can you tell me a story
Tell me a bedtime story
Write a bedtime story
Tell me another story
Tell me something
Tell me something nice
A story, please
Another story, please
Write something
Write something about bees
Tell me a story about bees
Tell me a story about a bee
Write a story about bees
Write a story about a bee
Write a short story about a bee
Story""".splitlines()

# The hero's own description is always a good subject, whatever happens to the hero.
ABOUT_HERO = """{a_bee}
{a_bee} named {hero}
a {kind} named {hero}
{hero} the {kind}
{hero}""".splitlines()


def as_typed(request: str, random: Random) -> str:
    """Return a request as people type it, with or without a mark, a capital, a line break."""
    mark = "?" if request.startswith(("Can", "Do ")) else random.choice([".", ".", ".", "!", ":"])
    if random.random() < 0.35:
        mark = ""
    if random.random() < 0.12:
        request = request[0].lower() + request[1:]
    return request + mark + random.choice([" ", " ", " ", "\n", "\n\n"])


def ask_for(plot: Plot | None, slots: dict[str, str], random: Random) -> str:
    """Return what somebody says who gets this plot told, or a tale without one."""
    chance = random.random()
    if chance < 0.2:
        return as_typed(random.choice(FOR_ANYTHING), random)
    about = random.choice(ABOUT_HERO)
    if plot and (chance < 0.65 or plot.season in ("visitor", "person")):
        about = random.choice(plot.about)
    return as_typed(expand(f"{random.choice(FOR_SOMETHING)} {about}", slots, random), random)
