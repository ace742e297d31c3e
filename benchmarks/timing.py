"""Times several ways of doing the same work against each other."""

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping


def compare(
    ways: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 3, seed: int = 0
) -> dict[str, float]:
    """Median over rounds of each way's time divided by the first way's time in the same round.

    All ways run once a round, in an order that is drawn anew, so that a drift of the machine's speed hits all alike.
    """
    draw = random.Random(seed)
    names = list(ways)
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(warm_up):
        for way in ways.values():
            way()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            seconds = {}
            for name in draw.sample(names, len(names)):
                start = time.perf_counter()
                ways[name]()
                seconds[name] = time.perf_counter() - start
            for name in names:
                ratios[name].append(seconds[name] / seconds[names[0]])
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in ratios.items()}
