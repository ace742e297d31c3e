"""Five classic analyses, written as for TransformerLens 2.x, on HuggingFace's own model.

The task is induction: after ``A B ... A`` a model should say ``B``. The clean sequence is a row of random tokens said
twice, up to its last token; in the corrupted one that token was another the first time. All analyses ask what carries
the difference between the two answers.

    python examples/five_analyses.py                        # on the checkpoint that ships with the package
    python examples/five_analyses.py --model gpt2           # on any GPT-2 or GPT-NeoX checkpoint, by folder or name
    python examples/five_analyses.py --config config.json   # on random weights of a configuration

Each analysis writes a plot, as HTML and as PNG, into ``--out``.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import plotly.graph_objects
import torch
from rich.console import Console
from transformer_lens import head_detector, patching
from transformers import AutoConfig, AutoModelForCausalLM

from mishformer_lens import HookedTransformer
from mishformer_lens.checkpoints import shipped_checkpoint

matplotlib.use("Agg")
console = Console()


@dataclasses.dataclass(frozen=True)
class Task:
    """One induction problem.

    Attributes:
        clean, corrupted: tokens ``[1, pos]``.
        answer: what follows the clean sequence; ``wrong``: what follows the corrupted one.
    """

    clean: torch.Tensor
    corrupted: torch.Tensor
    answer: int
    wrong: int

    def logit_difference(self, logits: torch.Tensor) -> torch.Tensor:
        """How much the last position prefers ``answer`` to ``wrong``, for logits ``[1, pos, d_vocab]``."""
        return logits[0, -1, self.answer] - logits[0, -1, self.wrong]


def make_task(model: HookedTransformer, length: int, seed: int = 0) -> Task:
    """Draw ``length`` different tokens and say them twice."""
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(model.cfg.d_vocab, generator=random)[: length + 1].to(model.cfg.device)
    row, wrong = drawn[:-1], drawn[-1]
    other = torch.cat([row[:-1], wrong[None]])
    clean, corrupted = (torch.cat([first, row[:-1]])[None] for first in (row, other))
    return Task(clean, corrupted, int(row[-1]), int(wrong))


class Plots:
    """Writes heat maps into a folder, each as HTML and as PNG."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def heat_map(
        self, name: str, title: str, values: torch.Tensor, rows: Sequence[str], columns: Sequence[str]
    ) -> None:
        """Plot ``values`` ``[row, column]``."""
        numbers = values.detach().float().cpu().numpy()
        limit = float(abs(numbers).max()) or 1.0
        heat_map = plotly.graph_objects.Heatmap(
            z=numbers, x=list(columns), y=list(rows), colorscale="RdBu", zmin=-limit, zmax=limit
        )
        figure = plotly.graph_objects.Figure(heat_map, layout={"title": title})
        figure.update_yaxes(autorange="reversed")
        figure.write_html(self.folder / f"{name}.html", include_plotlyjs="directory")
        drawing, axes = plt.subplots(figsize=(2 + 0.45 * len(columns), 1.5 + 0.4 * len(rows)))
        image = axes.imshow(numbers, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=90)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_title(title)
        drawing.colorbar(image)
        drawing.savefig(self.folder / f"{name}.png", bbox_inches="tight", dpi=120)
        plt.close(drawing)


def layers_of(model: HookedTransformer) -> list[str]:
    return [f"layer {layer}" for layer in range(model.cfg.n_layers)]


def heads_of(model: HookedTransformer) -> list[str]:
    return [f"head {head}" for head in range(model.cfg.n_heads)]


def positions_of(model: HookedTransformer, tokens: torch.Tensor) -> list[str]:
    """A label for each position: its token as text, or its number where there is no tokenizer."""
    texts = [str(token) for token in tokens[0].tolist()] if model.tokenizer is None else model.to_str_tokens(tokens)
    return [f"{position}: {text!r}" for position, text in enumerate(texts)]


def direct_logit_attribution(model: HookedTransformer, task: Task, plots: Plots) -> dict[str, float]:
    """What each head, each MLP and the embedding adds to the logit difference."""
    # Folded layer norms make the unembedding the whole of what reads the last residual stream.
    model.process_weights_()
    try:
        with torch.no_grad():
            logits, cache = model.run_with_cache(task.clean)
            parts, labels = cache.get_full_resid_decomposition(expand_neurons=False, pos_slice=-1, return_labels=True)
            added = cache.logit_attrs(
                parts, tokens=task.answer, incorrect_tokens=task.wrong, pos_slice=-1, has_batch_dim=True
            )[:, 0]
        bias = model.b_U[task.answer] - model.b_U[task.wrong]
        difference = float(task.logit_difference(logits))
    finally:
        model.undo_processing()
    plots.heat_map("direct_logit_attribution", "Direct logit attribution", added[None], ["logit difference"], labels)
    strongest = labels[int(added.argmax())]
    console.print(f"1. direct logit attribution: {strongest} adds most to a logit difference of {difference:.2f}")
    return {"difference": difference, "sum of parts": float((added.sum() + bias).detach())}


Metric = Callable[[torch.Tensor], torch.Tensor]


def make_metric(model: HookedTransformer, task: Task) -> Metric:
    """The logit difference, scaled so that the corrupted run gives 0 and the clean one 1."""
    with torch.no_grad():
        low, high = (task.logit_difference(model(tokens)) for tokens in (task.corrupted, task.clean))

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return (task.logit_difference(logits) - low) / (high - low)

    return metric


def activation_patching(model: HookedTransformer, task: Task, plots: Plots) -> torch.Tensor:
    """Which residual streams, and which heads' outputs, carry the answer from the clean into the corrupted run.

    Returns:
        The effect of each head's output, ``[n_layers, n_heads]``.
    """
    metric = make_metric(model, task)
    with torch.no_grad():
        _, cache = model.run_with_cache(task.clean)
        stream: torch.Tensor = patching.get_act_patch_resid_pre(model, task.corrupted, cache, metric)
        heads: torch.Tensor = patching.get_act_patch_attn_head_out_all_pos(model, task.corrupted, cache, metric)
    positions = positions_of(model, task.corrupted)
    plots.heat_map("patching_residual", "Patching the residual stream", stream, layers_of(model), positions)
    plots.heat_map("patching_heads", "Patching heads' outputs", heads, layers_of(model), heads_of(model))
    best = divmod(int(heads.argmax()), model.cfg.n_heads)
    console.print(f"2. activation patching: L{best[0]}H{best[1]} restores {float(heads.max()):.0%} of the answer")
    return heads


def path_patching(model: HookedTransformer, task: Task, plots: Plots, receiver: tuple[int, int]) -> torch.Tensor:
    """Through which of a head's inputs do the heads before it act on it, directly?

    The residual stream is a sum, so what one head says differently in the clean run can be added to the query, key or
    value input of one other head alone.

    Returns:
        The effect ``[part, sender]``; parts are query, key, value.
    """
    layer, head = receiver
    metric = make_metric(model, task)
    names = [f"blocks.{earlier}.attn.hook_result" for earlier in range(layer)]
    with torch.no_grad():
        clean, corrupted = (
            torch.cat([cache[name] for name in names], dim=2)
            for _, cache in (model.run_with_cache(run, names_filter=names) for run in (task.clean, task.corrupted))
        )
        news = clean - corrupted  # [1, pos, sender, d_model]

        def add(stream: torch.Tensor, hook: Any, sender: int) -> torch.Tensor:  # noqa: ARG001
            stream[:, :, head] += news[:, :, sender]
            return stream

        effects = [
            [
                metric(
                    model.run_with_hooks(
                        task.corrupted,
                        fwd_hooks=[(f"blocks.{layer}.hook_{part}_input", functools.partial(add, sender=sender))],
                    )
                )
                for sender in range(news.shape[2])
            ]
            for part in "qkv"
        ]
    result = torch.tensor(effects)
    labels = model.all_head_labels()[: news.shape[2]]
    title = f"Paths into L{layer}H{head}"
    plots.heat_map("path_patching", title, result, ["query", "key", "value"], labels)
    part, sender = divmod(int(result.abs().argmax()), news.shape[2])
    console.print(
        f"3. path patching: {labels[sender]} acts on L{layer}H{head} most, by its {['query', 'key', 'value'][part]}"
    )
    return result


def induction_heads(model: HookedTransformer, task: Task, plots: Plots) -> torch.Tensor:
    """How much of each head's attention goes to the token after the last occurrence of the current one.

    Returns:
        Scores ``[n_layers, n_heads]``.
    """
    pattern = head_detector.get_induction_head_detection_pattern(task.clean.cpu()).to(model.cfg.device)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    with torch.no_grad():
        _, cache = model.run_with_cache(task.clean, names_filter=names, remove_batch_dim=True)
    # detect_head() does the same for text; this is its measure, for tokens.
    measure = functools.partial(
        head_detector.compute_head_attention_similarity_score,
        detection_pattern=pattern,
        exclude_bos=False,
        exclude_current_token=False,
        error_measure="mul",
    )
    scores = torch.tensor([[measure(head) for head in cache[name]] for name in names])
    plots.heat_map("induction_heads", "Induction scores", scores, layers_of(model), heads_of(model))
    best = divmod(int(scores.argmax()), model.cfg.n_heads)
    console.print(f"4. head_detector: L{best[0]}H{best[1]} has the highest induction score, {float(scores.max()):.2f}")
    return scores


def attribution_patching(model: HookedTransformer, task: Task, plots: Plots, patched: torch.Tensor) -> torch.Tensor:
    """The effect of patching each head's output, estimated from one backward pass instead of one run a head.

    Args:
        patched: the true effect, ``[n_layers, n_heads]``.

    Returns:
        The estimate, ``[n_layers, n_heads]``.
    """
    metric = make_metric(model, task)
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    corrupted, forward, backward = model.get_caching_hooks(names, incl_bwd=True)
    with model.hooks(fwd_hooks=forward, bwd_hooks=backward):
        torch.autograd.backward(metric(model(task.corrupted)))
    model.zero_grad()
    with torch.no_grad():
        _, clean = model.run_with_cache(task.clean, names_filter=names)
    estimate = torch.stack(
        [((clean[name] - corrupted[name]) * corrupted[f"{name}_grad"]).sum((0, 1, 3)) for name in names]
    )
    plots.heat_map("attribution_patching", "Attribution patching", estimate, layers_of(model), heads_of(model))
    agreement = float(torch.corrcoef(torch.stack([estimate.flatten(), patched.flatten().to(estimate)]))[0, 1])
    console.print(f"5. attribution patching: correlates with activation patching by {agreement:.2f}")
    return estimate


def load(arguments: argparse.Namespace) -> HookedTransformer:
    """The model that the command line asks for."""
    if arguments.config is None:
        return HookedTransformer.from_pretrained(arguments.model, device=arguments.device, attn_implementation="eager")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(arguments.config, attn_implementation="eager")
    return HookedTransformer(AutoModelForCausalLM.from_config(config).eval()).to(arguments.device)


def main(command_line: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the five analyses and return their results by name."""
    parser = argparse.ArgumentParser(description="Five classic analyses on a GPT-2 or GPT-NeoX model.")
    parser.add_argument("--model", default=str(shipped_checkpoint()), help="a folder or a model's name")
    parser.add_argument("--config", default=None, help="a config.json: random weights instead of --model")
    parser.add_argument("--out", type=Path, default=Path("five-analyses"), help="the folder for the plots")
    parser.add_argument("--length", type=int, default=12, help="how many tokens are said twice")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args(command_line)
    model, plots = load(arguments), Plots(arguments.out)
    task = make_task(model, arguments.length)
    attribution = direct_logit_attribution(model, task, plots)
    patched = activation_patching(model, task, plots)
    later = patched[1:] if len(patched) > 1 else patched
    layer, head = divmod(int(later.argmax()), model.cfg.n_heads)
    paths = path_patching(model, task, plots, (layer + len(patched) - len(later), head)) if len(patched) > 1 else None
    scores = induction_heads(model, task, plots)
    estimate = attribution_patching(model, task, plots, patched)
    console.print(f"plots: {arguments.out}")
    return {
        "direct logit attribution": attribution,
        "activation patching": patched,
        "path patching": paths,
        "induction heads": scores,
        "attribution patching": estimate,
    }


if __name__ == "__main__":
    main()
