"""Memory of hooking, of a full cache and of loading, in bytes.

`python -m benchmarks.memory WORK SIZE ATTENTION FOLDER` prints the peak of one piece of work in a process of its own:
what an earlier one left in the allocator would hide it.
"""

import gc
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

import mishformer_lens
from benchmarks import loading, workloads
from benchmarks.models import make, tokens
from benchmarks.workloads import Work
from mishformer_lens.checkpoints import shipped_checkpoint


def weights_bytes(model: Any) -> int:
    """Bytes of all parameters and buffers."""
    return sum(each.nbytes for each in (*model.parameters(), *model.buffers()))


def hooking_bytes(model: Any) -> int:
    """How much the process grew by when the model was hooked; whole pages, so small models show nothing or a page."""
    process = psutil.Process()
    before = process.memory_info().rss
    mishformer_lens.instrument(model)
    return int(process.memory_info().rss - before)


def cached_bytes(size: str, attention: str) -> int:
    """Bytes of all activations that a cache of everything holds."""
    model = make(size, attention)
    with torch.inference_mode(), mishformer_lens.instrument(model).caching() as cache:
        model(tokens(size, model), use_cache=False)
    return sum(value.nbytes for value in cache.values())


def keeping_bytes(work: Work, count: int) -> Work:
    """``work``, and then ``count`` bytes in tensors of 400 kB, written once: what a cache costs by its size alone."""

    def run() -> object:
        return work(), [torch.zeros(100_000) for _ in range(count // 400_000)]

    return run


def _forward(size: str, attention: str, _folder: Path) -> Work:
    model = make(size, attention)
    # Loads the kernels, which take memory too, and leaves next to nothing in the allocator.
    workloads.forward(model, tokens(size, model)[:, :2])()
    return workloads.forward(model, tokens(size, model))


def _forward_with_cache(size: str, attention: str, _folder: Path) -> Work:
    model = make(size, attention)
    hooked = mishformer_lens.instrument(model)
    workloads.forward_with_cache(model, tokens(size, model)[:, :2], hooked, None)()
    return workloads.forward_with_cache(model, tokens(size, model), hooked, None)


def _load(_size: str, attention: str, folder: Path) -> Work:
    # The first load of a process imports what loading needs.
    loading.plain(shipped_checkpoint(), attention, run_it=True)()
    return loading.plain(folder, attention, run_it=True)


def _load_hooked(_size: str, attention: str, folder: Path) -> Work:
    loading.hooked(shipped_checkpoint(), attention, run_it=True)()
    return loading.hooked(folder, attention, run_it=True)


WORKS: dict[str, Callable[[str, str, Path], Work]] = {
    "forward": _forward,
    "forward-with-cache": _forward_with_cache,
    "load": _load,
    "load-hooked": _load_hooked,
}


def peak(work: str, size: str, attention: str, folder: Path | None = None, processes: int = 5) -> float:
    """How much more memory than before a process holds at most while it does the work called ``work``: the median."""
    command = [sys.executable, "-m", "benchmarks.memory", work, size, attention, str(folder or "")]
    runs = [subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True) for _ in range(processes)]
    return statistics.median(int(run.stdout.split()[-1]) for run in runs)


def peak_growth(work: Work) -> int:
    """How much this process grows by while it does ``work``, at most; it should have done little before."""
    gc.collect()
    # Sets the mark that is read below back to what is in use now. Linux alone has such a mark for each process.
    Path("/proc/self/clear_refs").write_text("5")
    before = psutil.Process().memory_info().rss
    # What a work gives is still there at its peak.
    _result = work()
    status = Path("/proc/self/status").read_text()
    highest = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(highest) - int(before)


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, model_size, implementation, checkpoint = sys.argv[1:]
    print(peak_growth(WORKS[name](model_size, implementation, Path(checkpoint))))
