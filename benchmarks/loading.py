"""Loading a checkpoint: HuggingFace's own classes, and the drop-in, which hooks what they loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.workloads import Work
from mishformer_lens import HookedTransformer
from mishformer_lens.checkpoints import shipped_checkpoint


@contextmanager
def saved(model: Any) -> Iterator[Path]:
    """A folder with the weights of ``model``, and a tokenizer, as people have them."""
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(shipped_checkpoint()).save_pretrained(folder)
        yield Path(folder)


def plain(folder: Path, attention: str, *, run_it: bool = False) -> Work:
    """What HuggingFace's users write.

    Args:
        run_it: give the model a token too. Some releases map the file into memory when they load it, and read no weight
            before it is used.
    """

    def run() -> object:
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
        # What the drop-in asks for as well; both are there already.
        model.to(torch.float32).to("cpu")
        return model, AutoTokenizer.from_pretrained(folder), _first_token(model) if run_it else None

    return run


def hooked(folder: Path, attention: str, *, run_it: bool = False) -> Work:
    """What the drop-in's users write; ``run_it`` as in :func:`plain`."""

    def run() -> object:
        model = HookedTransformer.from_pretrained(folder, device="cpu", attn_implementation=attention)
        return model, _first_token(model) if run_it else None

    return run


def _first_token(model: Any) -> object:
    with torch.inference_mode():
        return model(torch.zeros(1, 1, dtype=torch.long))
