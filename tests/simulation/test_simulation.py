"""The lives of a queen, a hive and their workers under one seed each: every delay, fault and order is drawn from it.

python3 build/test.py simulation                                        80 seeds, after those that found something
python3 build/test.py simulation --full                                 5000 of them
python3 build/test.py simulation -- --seeds 5000                        more of them
python3 build/test.py simulation -- --first-seed 1234 --seeds 1         one, whose trace is printed if it fails
"""

from __future__ import annotations

import traceback
from typing import Final

import pytest

from tests.simulation.story import Story
from tests.simulation.world import Violation

KEPT: Final[dict[int, str]] = {
    342: "a client was not told that its worker had made room: the network raised the error that it had asked for",
    348: "a request was tried once more, as none of what its first worker had generated had arrived",
    891: "the hive was asked for its list in a tight loop: its late events did not show the worker that it named",
    1262: "the same, by one request that waits for a slot of a worker that loads",
    1559: "the same, by several requests at once",
    1669: "the same, beside a hive that is killed",
    2556: "slots of workers that came and went between two events stayed promised for ever",
    4706: "a request was told of a hive that starts already: the queen that started it had been killed",
}
"""Seeds that found something, and what."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--first-seed", default=0)
        count = metafunc.config.getoption("--seeds", default=None)
        count = count or (5000 if metafunc.config.getoption("--full") else 80)
        metafunc.parametrize("seed", list(dict.fromkeys((*KEPT, *range(first, first + count)))))


def test_what_must_hold_holds(seed: int) -> None:
    story = Story(seed)
    try:
        story.run()
    except Violation as exc:
        pytest.fail(f"{story.trace}\n\nseed {seed}: {exc}", pytrace=False)
    except Exception:  # noqa: BLE001 (whatever it is, it is told together with what led to it)
        pytest.fail(f"{story.trace}\n\nseed {seed}: {traceback.format_exc()}", pytrace=False)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_seed_gives_the_same_run_each_time(number: int) -> None:
    stories = [Story(number), Story(number)]
    for story in stories:
        story.run()
    first, second = (str(story.trace).splitlines() for story in stories)
    assert len(first) > 20
    assert first == second
