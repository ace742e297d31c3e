"""``mishformer-lens demo``: runs it, and tells it as a story."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mishformer_lens.cli import output

if TYPE_CHECKING:
    from mishformer_lens.demo.running import Result


@click.command()
@click.option(
    "--model", metavar="PATH_OR_NAME", help="A checkpoint of any supported family; by default the one that ships."
)
@click.option("--text", help="The text to look at.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="demo-output",
    show_default=True,
    help="The folder for pictures.",
)
@output.json_option
def demo(model: str | None, text: str | None, out: Path, as_json: bool) -> None:
    """Hook a real checkpoint, prove that nothing changed, find its induction head, and take that head away.

    Exit code 0: every output bit stayed the same while no hook acted; 1: some did not.
    """
    from transformers.utils import logging

    from mishformer_lens.demo.running import run

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    result = run(model, text, out)
    if as_json:
        output.write_json(result)
    else:
        _tell(result)
    if result.differing:
        output.leave(output.FOUND)


def _tell(result: "Result") -> None:
    console = output.console()
    console.print(f"model     {result.model}", markup=False)
    console.print(f"variant   {result.family} {result.variant}, for transformers {result.transformers}\n")
    if result.differing:
        console.print(f"[red]These outputs changed:[/] {', '.join(result.differing)}")
    else:
        console.print(
            f"Bit-identical: all {len(result.compared)} outputs (logits, loss, hidden states, attentions) are equal to "
            "the unhooked\nmodel's in every bit, with idle hooks and while hooks read activations.\n"
        )
    _tell_hook_points(result)
    scores = output.table("head", "induction score", "", title="induction score, from hook_pattern on repeated tokens")
    for head in result.scores[:12]:
        scores.add_row(head.name, f"{head.score:.3f}", "█" * round(30 * head.score))
    console.print(scores)
    if len(result.scores) > 12:
        console.print(f"({len(result.scores) - 12} more heads, none of them higher: --json)\n")
    losses = output.table("loss on", "left out by hook_z", "before", "after", title="ablation, loss in nats a token")
    for each in result.ablations:
        losses.add_row(each.measured_on, f"head {each.head}", f"{each.whole:.3f}", f"{each.without:.3f}")
    console.print(losses)
    for path in result.pictures:
        console.print(f"wrote {path}", markup=False)
    if result.no_pictures:
        console.print(result.no_pictures, markup=False)


def _tell_hook_points(result: "Result") -> None:
    console = output.console()
    layers = len({name.split(".")[1] for name in result.hook_points if name.startswith("blocks.")})
    names: Counter[tuple[str, str]] = Counter()
    for name, shape in result.hook_points.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            parts[1] = "{layer}"
        names[".".join(parts), str(shape)] += 1
    points = output.table("hook point", "shape", title=f"{len(result.hook_points)} hook points, {layers} layers")
    for pattern, size in names:
        points.add_row(pattern, size)
    console.print(points, markup=False)
