"""Times several ways of doing the same work against each other."""

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping


def compare(
    ways: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 3, seed: int = 0, hold: bool = True
) -> dict[str, float]:
    """Median over rounds of each way's time divided by the first way's time in the same round.

    All ways run once a round, in an order that is drawn anew, so that a drift of the machine's speed hits all alike.

    Args:
        hold: keep each way's result until its next, as a variable in a notebook does. Else it is freed before the
            clock is read: for a cache of hundreds of megabytes, the allocator then gives the pages back to the
            operating system and the next run has to ask for them again.
    """
    draw = random.Random(seed)
    names = list(ways)
    ratios: dict[str, list[float]] = {name: [] for name in names}
    held: dict[str, object] = {}
    for _ in range(warm_up):
        for name, way in ways.items():
            held[name] = way()
    if not hold:
        held.clear()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            seconds = {}
            for name in draw.sample(names, len(names)):
                start = time.perf_counter()
                result = ways[name]()
                if not hold:
                    result = None
                seconds[name] = time.perf_counter() - start
                held[name] = result
                del result
            for name in names:
                ratios[name].append(seconds[name] / seconds[names[0]])
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in ratios.items()}
