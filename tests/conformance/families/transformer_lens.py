"""TransformerLens's own models with the weights of a kind's model, and what they compute.

Their configuration is the one that TransformerLens reads off HuggingFace's by itself; where it has templates for named
models instead, one of these, in the sizes of the suite.
"""

import contextlib
import functools
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from packaging.version import Version

from mishformer_lens.hooked_transformer.transformer_lens_compat import (
    HAS_OWN_HOOKED_TRANSFORMER,
    IS_REFERENCE,
    RELEASE,
)
from tests.conformance.families.conftest import here
from tests.conformance.families.contract import contract, is_split_input, unflagged
from tests.conformance.golden import FLAGS, UNEDITED, edit
from tests.kinds import Counterpart, kinds
from tests.models import D_MLP, D_MODEL, D_VOCAB, MAX_POS, N_HEADS, N_LAYERS, Case, make_model, make_tokens
from tests.recording import hooked, recorded

Values = dict[str, torch.Tensor]
"""Name to activation, and the logits."""

# What float32 explains: TransformerLens adds up in another order than HuggingFace.
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def carried() -> list[str]:
    """The kinds that the installed TransformerLens computes rightly; from 4.0 on it has no class of its own."""
    if not HAS_OWN_HOOKED_TRANSFORMER:
        return []
    return [name for name in here() if kinds()[name].is_readable and kinds()[name].counterpart(RELEASE) is not None]


def counterpart(kind: str, release: Version = RELEASE) -> Counterpart:
    """What a kind is in a release of TransformerLens that carries it."""
    found = kinds()[kind].counterpart(release)
    assert found is not None, f"TransformerLens {release} does not carry {kind}"
    return found


def hf_model(kind: str, release: Version = RELEASE, attention: str = "eager") -> Any:
    """HuggingFace's model, with what a release of TransformerLens gets right."""
    return make_model(Case(kind, attention), **counterpart(kind, release).changes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of TransformerLens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@functools.cache
def reference(kind: str) -> Any:
    """TransformerLens's ``HookedTransformer`` with the same weights, not processed."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens import loading_from_pretrained as loading

    other, theirs = hf_model(kind), counterpart(kind)
    other.config.architectures = [type(other).__name__]
    # It chooses templates by the path that it is given.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), quiet():
        other.config.save_pretrained(theirs.called)
        fields = loading.convert_hf_model_config(theirs.called) | {"device": "cpu", "tokenizer_name": None}
        if theirs.template is not None:
            fields |= {**sizes(kind, other.config), **theirs.template}
        cfg = HookedTransformerConfig.from_dict(fields)
        model = HookedTransformer(cfg)
        state = loading.get_pretrained_state_dict(theirs.called, cfg, hf_model=other)
        model.load_state_dict({name: value.detach().clone() for name, value in state.items()}, strict=False)
    return model.eval()


def sizes(kind: str, config: Any) -> dict[str, Any]:
    """The sizes of a model as TransformerLens calls them."""
    d_head = config.hidden_size // N_HEADS if "head_dim" not in vars(config) else config.head_dim
    return {
        "n_layers": N_LAYERS,
        "n_heads": N_HEADS,
        "n_key_value_heads": kinds()[kind].key_value_heads,
        "d_model": D_MODEL,
        "d_head": d_head,
        "rotary_dim": d_head,
        "d_mlp": D_MLP,
        "d_vocab": D_VOCAB,
        "n_ctx": MAX_POS,
    }


def edits(kind: str) -> list[str]:
    """Every run of a kind of model: unedited, and with an edit of each hook point."""
    return [UNEDITED, *contract(kind)]


def names(kind: str, edited: str) -> list[str]:
    """What can be compared under an edit: all that fires without a flag.

    Without the first norms where an input of the attention is edited: TransformerLens's flag makes those of all blocks
    work on a copy for each head.
    """
    per_head = is_split_input(edited) or edited.endswith("hook_attn_in")
    return [name for name in unflagged(kind) if not (per_head and ".ln1." in name)]


def run_hooked(model: Any, points: Any, edited: str, recorded_names: Sequence[str]) -> Values:
    """One pass of HuggingFace's model: every activation as hooks leave it, and the logits."""
    changes = {edited: edit} if edited != UNEDITED else {}
    with torch.no_grad(), hooked(points, changes), recorded(points, recorded_names) as values:
        logits = model(make_tokens()).logits
    return {name: value for name, (value,) in values.items()} | {"logits": logits}


def run_reference(kind: str, edited: str, recorded_names: Sequence[str]) -> Values:
    """One pass of TransformerLens's model: every activation as hooks leave it (the first of several), and logits."""
    model, values = reference(kind), Values()

    def record(activation: torch.Tensor, hook: Any) -> None:
        there, _ = _meaning(model, kind, hook.name)
        values.setdefault(hook.name, there(activation).clone())

    def change(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        there, back = _meaning(model, kind, hook.name)
        return back(edit(there(activation), hook))

    hooks: list[Any] = [(name, record) for name in recorded_names]
    if edited != UNEDITED:
        hooks.insert(0, (edited, change))
    with torch.no_grad(), flag(model, edited):
        values["logits"] = model.run_with_hooks(make_tokens(), fwd_hooks=hooks)
    return values


@contextlib.contextmanager
def flag(model: Any, edited: str) -> Iterator[None]:
    """With the flag set without which a hook point would not fire."""
    setter = FLAGS.get(edited.rpartition(".")[2])
    if setter is None:
        yield
        return
    getattr(model, setter)(True)
    yield
    getattr(model, setter)(False)


Change = Callable[[torch.Tensor], torch.Tensor]


def _meaning(model: Any, kind: str, name: str) -> tuple[Change, Change]:
    """From what TransformerLens shows at a hook point to what it means here, and back.

    From 3.0 on, a layer norm's ``hook_normalized`` comes before gain and bias.
    """
    if kinds()[kind].norm == "rms" or IS_REFERENCE or not name.endswith("hook_normalized"):
        return _same, _same
    norm = model.get_submodule(name.removesuffix(".hook_normalized"))
    return lambda value: value * norm.w + norm.b, lambda value: (value - norm.b) / norm.w


def _same(value: torch.Tensor) -> torch.Tensor:
    return value
