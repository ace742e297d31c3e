"""Write docs/hooked-transformer-names.md: what became of every public name of TransformerLens's ``HookedTransformer``.

    python -m scripts.list_hooked_transformer_names            # write it
    python -m scripts.list_hooked_transformer_names --check    # fail if it is not up to date

The names, the parameters and their defaults are found by inspection; a difference that has no explanation below stops
the script. Run it where TransformerLens 2.15.4 is installed.
"""

import argparse
import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Any

from torch import nn

from mishformer_lens.hooked_transformer.transformer_lens_compat import IS_REFERENCE, RELEASE

PAGE = Path(__file__).parents[1] / "docs" / "hooked-transformer-names.md"

DIFFERS = {
    "from_pretrained": (
        "`fold_ln`, `center_writing_weights`, `center_unembed` and `fold_value_biases` are False unless asked for, so "
        "that every output bit is HuggingFace's. With `hf_model=`, that model is used and hooked in place, not copied."
    ),
    "init_weights": "HuggingFace's initialisation for the configuration, not TransformerLens's `init_mode`.",
    "check_hooks_to_add": "Refuses nothing: hook points behind a `use_*` flag work without it. Override it as there.",
}

NOTES = {
    "W_gate": "None, as there, where MLPs are not gated.",
    "W_pos": "Only where positions are learned, as there.",
    "W_E_pos": "Only where positions are learned, as there.",
    "b_U": "Zeros where the model has no such bias; assign to `unembed.b_U` to give it one.",
    "add_hook": "An unknown name is an `UnknownHookError`, a `KeyError` with a suggestion.",
    "cfg": "The same fields on every release of TransformerLens; changing a size changes no computation.",
    "blocks": "A tuple of views with `attn`, `mlp`, `ln1`, `ln2`, as many as the model has now; no registered modules.",
    "embed": "A view with `W_E`; callable.",
    "pos_embed": "A view with `W_pos`; callable. Only where positions are learned, as there.",
    "hook_pos_embed": "For padding, HuggingFace's embedding of position 0; there zeros. Nothing else depends on it.",
    "get_residual": "No hook fires.",
    "loss_fn": "`forward` returns HuggingFace's own mean, equal within rounding, unless this is overridden.",
    "load_state_dict": "HuggingFace's names.",
    "unembed": "A view with `W_U` and `b_U`; callable.",
    "ln_final": "A view with `w`, `b`, `eps` and its hook points; callable. Folded, it has `w` 1 and `b` 0.",
    "forward": (
        "Bit by bit HuggingFace's default call, and its `labels=` loss. Also takes token embeddings. Masked scores are "
        "the lowest number of the dtype, as in HuggingFace, not `-inf`. A TransformerLens key-value cache holds "
        "GPT-NeoX's keys rotated; to add to one, run all layers."
    ),
    "generate": (
        "HuggingFace's generation: the same distribution, other random draws for a seed. Several texts are padded on "
        "the left by default. Also takes what HuggingFace's `generate` takes, as `logits_processor=`; other names are "
        "refused."
    ),
    "get_caching_hooks": "`pos_slice` cuts `hook_rot_q` and `hook_rot_k` by position; there it cuts the heads.",
    "hook_dict": "An unknown name is an `UnknownHookError` with a suggestion.",
    "load_and_process_state_dict": "A name that the model does not have is an error instead of being skipped.",
    "load_sample_training_dataset": "Downloads, with TransformerLens's `get_dataset`.",
    "mod_dict": "Hook points and the views of the parts.",
    "process_weights_": "`undo_processing()` brings the weights back, bit by bit. Tied embeddings are untied.",
    "run_with_cache": (
        "A filter that picks nothing but hook points behind a flag gets them. Unknown names are errors. `ln1` hooks "
        "fire once, there three times, and by heads under the flags for split inputs."
    ),
    "run_with_hooks": "Hook points behind a flag work without it; there they silently do nothing.",
    "set_tokenizer": "Keeps a copy of the tokenizer; there it is loaded anew. Tokens are the same.",
    "set_ungroup_grouped_query_attention": "Refused where keys and values have fewer heads.",
    "to": "Prints nothing.",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the page."""

    name: str
    verdict: str
    note: str


def public_names(reference: Any) -> list[str]:
    """The names of the class that ``nn.Module`` lacks or that it redefines, and the attributes of an instance."""
    theirs = type(reference)
    of_class = {name for name in dir(theirs) if name not in dir(nn.Module) or name in vars(theirs)}
    of_instance = (set(vars(reference)) | set(reference._modules)) - set(vars(nn.Module()))
    return sorted(name for name in of_class | of_instance if not name.startswith("_"))


def make_reference() -> Any:
    """TransformerLens's own model, tiny."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    cfg = HookedTransformerConfig(
        n_layers=1, d_model=8, n_ctx=8, d_head=4, d_vocab=16, act_fn="gelu_new", seed=0, device="cpu"
    )
    return HookedTransformer(cfg)


def make_ours() -> Any:
    """The drop-in, tiny."""
    import transformers

    from mishformer_lens import HookedTransformer

    config = transformers.GPT2Config(
        vocab_size=16, n_embd=8, n_head=2, n_layer=1, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    return HookedTransformer(transformers.GPT2LMHeadModel(config))


def signature_differences(theirs: Any, ours: Any) -> list[str]:
    """What the parameters of ``theirs`` have become in ``ours``."""
    if not callable(theirs) or inspect.isclass(theirs) or not inspect.isroutine(theirs):
        return []
    new = inspect.signature(ours).parameters
    takes_rest = any(parameter.kind is parameter.VAR_KEYWORD for parameter in new.values())
    found = []
    for name, parameter in inspect.signature(theirs).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name not in new:
            if not takes_rest:
                found.append(f"no `{name}`")
        # As text: the marker of TransformerLens for "not given" and None are one in both.
        elif parameter.default is not parameter.empty and str(new[name].default) != str(parameter.default):
            found.append(f"`{name}` is {new[name].default} by default, there {parameter.default}")
    return found


def make_rows() -> list[Row]:
    """One row for each name, sorted.

    Raises:
        SystemExit: a name is absent, a difference in a signature has no explanation, or an explanation is of no name.
    """
    reference, ours = make_reference(), make_ours()
    names = public_names(reference)
    unknown = set(DIFFERS) - set(names)
    if unknown:
        raise SystemExit(f"TransformerLens's HookedTransformer has no {', '.join(sorted(unknown))}")
    rows = []
    for name in names:
        present = name in dir(type(ours)) or name in vars(ours)
        if not present:
            raise SystemExit(f"the drop-in has no {name}: add it, or say here why it is absent")
        in_class = name in dir(type(reference)) and name in dir(type(ours))
        changed = signature_differences(getattr(type(reference), name), getattr(type(ours), name)) if in_class else []
        if changed and name not in DIFFERS and not NOTES.get(name):
            raise SystemExit(f"{name}: {'; '.join(changed)}: explain it in DIFFERS or NOTES")
        verdict = "differs" if name in DIFFERS else "same"
        rows.append(Row(name, verdict, DIFFERS.get(name) or NOTES.get(name, "")))
    return rows


def render(rows: list[Row]) -> str:
    """The page."""
    same = sum(row.verdict == "same" for row in rows)
    lines = [
        "# Every public name of TransformerLens 2.15.4's `HookedTransformer`",
        "",
        "<!-- Written by `python -m scripts.list_hooked_transformer_names`; do not edit. -->",
        "",
        "What the drop-in `mishformer_lens.HookedTransformer` makes of each. *Same*: the same arguments, defaults and",
        "meaning; a note says what is worth knowing. *Differs*: present, with another meaning or default, and how. The",
        "names come from inspecting the class and an instance of it, without those of `torch.nn.Module`. The",
        "constructor is not among them: it takes a HuggingFace model and a tokenizer, where TransformerLens's takes a",
        "configuration.",
        "",
        f"**{same} of {len(rows)} names are present with the same meaning: {same / len(rows):.1%}.** "
        f"{len(rows) - same} differ. None is absent.",
        "",
        "| name | verdict | note |",
        "| --- | --- | --- |",
        *(f"| `{row.name}` | {row.verdict} | {row.note} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is not up to date")
    arguments = parser.parse_args()
    if not IS_REFERENCE:
        raise SystemExit(f"TransformerLens {RELEASE} is installed; the page is about 2.15.4.")
    page = render(make_rows())
    if not arguments.check:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
        print(f"wrote {PAGE}")
    elif PAGE.read_text(encoding="utf-8") != page:
        sys.exit(f"{PAGE} is not up to date: run python -m scripts.list_hooked_transformer_names")


if __name__ == "__main__":
    main()
