"""The demo from end to end: a checkpoint in, measurements and pictures out."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mishformer_lens import instrument
from mishformer_lens.checkpoints import DEMO_TEXT, shipped_checkpoint
from mishformer_lens.demo import measuring
from mishformer_lens.demo.measuring import Head
from mishformer_lens.errors import CheckpointNotFoundError, TokenizerError
from mishformer_lens.patchers.installed import installed_release


@dataclasses.dataclass(frozen=True)
class Ablation:
    """The loss, in nats a token, with all heads and without one of them.

    Attributes:
        measured_on: ``repeated tokens``, their second half; or ``the text``.
        head: the head that is left out.
        whole: the loss with all heads.
        without: the loss without ``head``.
    """

    measured_on: str
    head: str
    whole: float
    without: float


@dataclasses.dataclass(frozen=True)
class Result:
    """All that the demo found.

    Attributes:
        compared: the results of the unhooked model that the hooked model repeated.
        differing: those that differ in any bit: with idle hooks, or while every activation is read.
        hook_points: hook point to the shape of its activation for the text.
        scores: every head, the one with the highest induction score first.
        pictures: the files that were written.
        no_pictures: why there are none; empty where there are some.
    """

    model: str
    transformers: str
    family: str
    variant: str
    tokens: list[str]
    compared: list[str]
    differing: list[str]
    hook_points: dict[str, list[int]]
    scores: list[Head]
    ablations: list[Ablation]
    pictures: list[str]
    no_pictures: str = ""


def run(model_name: str | None, text: str | None, out: Path) -> Result:
    """Run the demo.

    Args:
        model_name: a folder with a checkpoint of any supported family, or a name that transformers knows; by default
            the small checkpoint that ships with this library.
        text: what to look at; by default a text that the shipped checkpoint can say something about.
        out: the folder for pictures; made if it is not there.

    Raises:
        CheckpointNotFoundError: there is no such checkpoint.
        TokenizerError: the text gives fewer than two tokens.
        UnsupportedModelError, ResolutionError: see :func:`mishformer_lens.instrument`.
    """
    name = model_name or str(shipped_checkpoint())
    model, tokenizer = load(name)
    tokens = _tokens(model, tokenizer, text or DEMO_TEXT)
    before = measuring.everything(model, tokens)
    with instrument(model) as instrumented:
        differing = measuring.differing(before, measuring.everything(model, tokens))
        shapes = measuring.shapes_of_hook_points(instrumented, model, tokens)
        differing += measuring.differing(before, _while_reading(instrumented, model, tokens))
        config = model.config
        repeated, half = measuring.repeated_tokens(
            config.vocab_size, config.max_position_embeddings, tokenizer.bos_token_id
        )
        scores = measuring.induction_scores(measuring.patterns(instrumented, model, repeated), half)
        pattern = measuring.patterns(instrumented, model, tokens)[scores[0].layer][0, scores[0].head]
        ablations = [
            _ablation("repeated tokens", instrumented, model, repeated, half, scores[0]),
            _ablation("the text", instrumented, model, tokens, tokens.shape[1] - 1, scores[0]),
        ]
    words = [word or " " for word in tokenizer.batch_decode([[token] for token in tokens[0].tolist()])]
    pictures, reason = _draw(pattern, words, scores[0], out)
    return Result(
        model=name if model_name else f"the checkpoint that ships with mishformer-lens ({shipped_checkpoint().name})",
        transformers=installed_release(),
        family=instrumented.family.name,
        variant=instrumented.variant.name,
        tokens=words,
        compared=list(before),
        differing=list(dict.fromkeys(differing)),
        hook_points=shapes,
        scores=scores,
        ablations=ablations,
        pictures=pictures,
        no_pictures=reason,
    )


def load(name: str) -> tuple[Any, Any]:
    """A causal language model, ready for use, with eager attention, and its tokenizer.

    Raises:
        CheckpointNotFoundError: there is no such checkpoint.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="eager")
    except (OSError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise CheckpointNotFoundError(
            f"no checkpoint with a tokenizer can be loaded from {name!r} ({first_line}). Give a folder that "
            "save_pretrained wrote, or leave --model out for the checkpoint that ships with mishformer-lens."
        ) from error
    return model.eval(), tokenizer


def _tokens(model: Any, tokenizer: Any, text: str) -> torch.Tensor:
    tokens: torch.Tensor = tokenizer(text, return_tensors="pt").input_ids
    if tokens.shape[1] < 2:
        raise TokenizerError(f"the text gives {tokens.shape[1]} token(s), and a loss needs two. Give a longer --text.")
    return tokens[:, : model.config.max_position_embeddings]


def _while_reading(instrumented: Any, model: nn.Module, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """The model's results while a hook on every hook point that always fires reads its activation."""
    flagged = {spec.name for spec in instrumented.family.block_hooks if spec.flag}
    points = [point for name, point in instrumented.hook_points.items() if name.split(".", 2)[-1] not in flagged]
    for point in points:
        point.add_hook(_read)
    try:
        return measuring.everything(model, tokens)
    finally:
        for point in points:
            point.remove_hooks()


def _read(activation: torch.Tensor, hook: Any) -> None:
    """A hook that leaves everything as it is."""


def _ablation(
    measured_on: str, instrumented: Any, model: nn.Module, tokens: torch.Tensor, last: int, head: Head
) -> Ablation:
    whole = measuring.loss(instrumented, model, tokens, last)
    return Ablation(measured_on, head.name, whole, measuring.loss(instrumented, model, tokens, last, without=head))


def _draw(pattern: torch.Tensor, words: list[str], head: Head, out: Path) -> tuple[list[str], str]:
    try:
        from mishformer_lens.demo import drawing
    except ModuleNotFoundError as error:
        return [], f'{error.name} is not installed, so nothing was drawn: pip install "mishformer-lens[demo]"'
    title = f"attention of head {head.name}, induction score {head.score:.2f}"
    return [str(path) for path in drawing.draw(pattern, words, title, out)], ""
