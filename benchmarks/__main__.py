"""Prints a table of ratios, and writes them as JSON with `--json FILE`."""

import argparse
import copy
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

import mishformer_lens
from benchmarks import loading, memory, workloads
from benchmarks.models import SIZES, make, tokens
from benchmarks.others import others
from benchmarks.timing import compare

PLAIN, COPY, HOOKED = "plain", "plain, second copy", "hooked"
AS_MUCH = "plain, and as much memory"


WORKS = ("idle", "cache", "generation", "training", "loading")
"""What can be chosen with ``--works``."""

Ratios = dict[str, dict[str, float]]
"""Work to contender to its time relative to the plain model."""


def measure(size: str, attention: str, rounds: int, works: Collection[str], with_others: bool) -> Ratios:
    """All the ratios of one model. A contender is another way of doing the same work."""
    plain = make(size, attention)
    second, hooked_model = copy.deepcopy(plain), copy.deepcopy(plain)
    hooked = mishformer_lens.instrument(hooked_model)
    ids = tokens(size, plain)
    idle = {PLAIN: plain, COPY: second, HOOKED: hooked_model}
    forwards = {name: workloads.forward(model, ids) for name, model in idle.items()}
    everything = workloads.forward_with_cache(hooked_model, ids, hooked, None)
    one = workloads.forward_with_cache(hooked_model, ids, hooked, ["blocks.0.hook_resid_post"])
    plain_only = {PLAIN: forwards[PLAIN], COPY: forwards[COPY]}
    result: Ratios = {}
    if "idle" in works:
        result["idle forward"] = compare(forwards, rounds=rounds)
    if "cache" in works:
        as_much = memory.keeping_bytes(forwards[PLAIN], memory.cached_bytes(size, attention))
        cached = {**plain_only, AS_MUCH: as_much, HOOKED: everything}
        result["cache of everything"] = compare(cached, rounds=rounds)
        result["cache of everything, freed at once"] = compare(cached, rounds=rounds, hold=False)
        result["cache of one name"] = compare({**plain_only, HOOKED: one}, rounds=rounds)
    if "generation" in works:
        generations = {name: workloads.generation(model, ids, 64) for name, model in idle.items()}
        result["generation of 64 tokens, idle"] = compare(generations, rounds=rounds, warm_up=1)
    if "training" in works:
        steps = {name: workloads.training_step(model, ids) for name, model in idle.items()}
        result["training step, idle"] = compare(steps, rounds=rounds)
    if "loading" in works:
        result |= measure_loading(plain, attention, rounds)
    if with_others:
        for name, other_idle, other_cache in others(copy.deepcopy(plain), ids):
            for work, other in (("idle forward", other_idle), ("cache of everything", other_cache)):
                ratios = compare({**plain_only, name: other}, rounds=rounds)
                result.setdefault(work, {PLAIN: 1.0})[name] = ratios[name]
    return result


def measure_loading(model: Any, attention: str, rounds: int) -> Ratios:
    """Loading ``model`` from a folder, and loading it for use."""
    result = {}
    with loading.saved(model) as folder:
        for work, run_it in (("loading", False), ("loading and a first token", True)):
            plain = loading.plain(folder, attention, run_it=run_it)
            loads = {PLAIN: plain, COPY: plain, HOOKED: loading.hooked(folder, attention, run_it=run_it)}
            result[work] = compare(loads, rounds=rounds, hold=False)
    return result


def instrument_seconds(size: str, attention: str) -> float:
    """Time to hook a second model: the first pays for compiling."""
    mishformer_lens.instrument(make(size, attention))
    model = make(size, attention)
    start = time.perf_counter()
    mishformer_lens.instrument(model)
    return time.perf_counter() - start


def measure_memory(size: str, attention: str) -> dict[str, float]:
    """Memory of hooking, of a full cache and of loading, each relative to what it is compared with."""
    model = make(size, attention)
    grown = memory.hooking_bytes(model)
    forward, cached = (memory.peak(work, size, attention) for work in ("forward", "forward-with-cache"))
    with loading.saved(model) as folder:
        load, load_hooked = (memory.peak(work, size, attention, folder) for work in ("load", "load-hooked"))
    return {
        "growth by hooking / weights": grown / memory.weights_bytes(model),
        "what the peak of a full cache adds / what is cached": (cached - forward)
        / memory.cached_bytes(size, attention),
        "peak of loading and a first token / plain": load_hooked / load,
    }


def environment() -> dict[str, str]:
    """What the numbers were measured with."""
    packages = ("mishformer-lens", "torch", "transformers", "transformer-lens")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "threads": str(torch.get_num_threads()), **versions}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny", "gpt2"])
    parser.add_argument("--attention", nargs="+", choices=["eager", "sdpa"], default=["eager"])
    parser.add_argument("--works", nargs="+", choices=WORKS, default=WORKS, help="what to time (default: all)")
    parser.add_argument("--rounds", type=int, default=30, help="runs of each contender (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default: %(default)s)")
    parser.add_argument("--no-others", action="store_true", help="leave other libraries out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    record: dict[str, Any] = {"environment": environment(), "results": []}
    console = Console()
    for size in arguments.sizes:
        for attention in arguments.attention:
            ratios = measure(size, attention, arguments.rounds, arguments.works, not arguments.no_others)
            # Peaks are told in whole pages, of which the tiny model needs a few.
            sizes = {} if size == "tiny" else measure_memory(size, attention)
            seconds = instrument_seconds(size, attention)
            record["results"].append(
                {"size": size, "attention": attention, "ratios": ratios, "memory": sizes, "instrument_seconds": seconds}
            )
            _show(console, f"{size}, {attention}: time relative to the plain model", ratios)
            console.print(f"instrument(): {1000 * seconds:.1f} ms")
            for what, ratio in sizes.items():
                console.print(f"{what}: {ratio:.4f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


def _show(console: Console, title: str, ratios: Ratios) -> None:
    table = Table(title=title)
    table.add_column("work")
    names = list(dict.fromkeys(name for row in ratios.values() for name in row))[1:]
    for name in names:
        table.add_column(name, justify="right")
    for work, row in ratios.items():
        table.add_row(work, *(f"{row[name]:.3f}" if name in row else "-" for name in names))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
