"""The drop-in :class:`HookedTransformer`."""

import random
import re
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from mishformer_lens.errors import UnsupportedModelError
from mishformer_lens.hooked_transformer.caching import Caching
from mishformer_lens.hooked_transformer.components import (
    MLP,
    Attention,
    Block,
    Embed,
    OutputEmbeddings,
    Place,
    PosEmbed,
    Unembed,
    norm_component,
)
from mishformer_lens.hooked_transformer.config import HookedTransformerConfig, config_of, d_mlp_of
from mishformer_lens.hooked_transformer.families import drop_in_of, refuse_other_forms, refuse_without_drop_in
from mishformer_lens.hooked_transformer.generation import Generation
from mishformer_lens.hooked_transformer.loading import Loading
from mishformer_lens.hooked_transformer.projections import d_out_of, device_of, vocabulary_of
from mishformer_lens.hooked_transformer.tokens import USE_DEFAULT_VALUE, PaddingSide
from mishformer_lens.hooked_transformer.transformer_lens_compat import utils
from mishformer_lens.instrumentation import instrument

_PREFIX = "hf_model."


class HookedTransformer(Loading, Generation, Caching):
    """TransformerLens's ``HookedTransformer``, running HuggingFace's own model.

    Logits, gradients and generated tokens are HuggingFace's, bit by bit, until a hook acts or the weights are
    processed. The weights are HuggingFace's parameters; only what HuggingFace keeps otherwise, as Gemma's gains less
    one, is computed when it is read. ``state_dict()`` has HuggingFace's names.

    Args:
        hf_model: a model of transformers with a language-modelling head, of a family whose weights are known under
            TransformerLens's names: those with a "yes" under *drop-in* in docs/families.md. It is hooked in place.
        tokenizer: for methods that take or give text; a copy is kept.
        default_padding_side: on which side several texts are padded, ``left`` or ``right``.

    Raises:
        UnsupportedModelError: the model is of another family, or has no language-modelling head. It is left alone; of
            other families, :func:`mishformer_lens.instrument` gives the hook points.
        ResolutionError: there is no proven variant for the installed transformers.
    """

    def __init__(
        self,
        hf_model: Any,
        tokenizer: Any | None = None,
        default_padding_side: PaddingSide = "right",
    ) -> None:
        super().__init__()
        if not isinstance(hf_model, nn.Module):
            raise UnsupportedModelError(
                f"{type(hf_model).__name__} given, and a model of transformers is needed. To load one by name or from "
                "a folder use HookedTransformer.from_pretrained; for random weights from a configuration, "
                "HookedTransformer(GPT2LMHeadModel(GPT2Config(...)))."
            )
        refuse_without_drop_in(hf_model)
        self.instrumentation = instrument(hf_model)
        refuse_other_forms(self.instrumentation)
        if hf_model.get_output_embeddings() is None:  # type: ignore[operator]
            raise UnsupportedModelError(
                f"{type(hf_model).__name__} has no language-modelling head. Load it with AutoModelForCausalLM, or use "
                "mishformer_lens.instrument(model) for its hook points alone."
            )
        self.hf_model = hf_model
        self._make_parts()
        self._glance = self._look()
        self._seen = self._fields()
        family = self.instrumentation.family
        self._cfg = config_of(hf_model, family, drop_in_of(family), self.ln_final, self.blocks, self._seen)
        self.tokenizer = None
        self.dataset: Any | None = None
        if tokenizer is not None:
            self.set_tokenizer(tokenizer, default_padding_side)
        self.register_state_dict_post_hook(_without_prefix)
        # Where it is a part of a module that is loaded; else see load_state_dict().
        self.register_load_state_dict_pre_hook(_with_prefix)
        self.register_load_state_dict_post_hook(_report_without_prefix)
        # Not train(), which would give this mode to every part: some may be frozen in another.
        self.training = hf_model.training
        self.setup()

    def _make_parts(self) -> None:
        base, family = self.instrumentation.model, self.instrumentation.family
        drop_in = drop_in_of(family)
        self.embed = Embed(Place(base, drop_in.embed), drop_in)
        if "embed.ln" in family.components:
            self.embed.ln = self._make_norm("", "embed.ln", Place(base, family.components["embed.ln"]))
        if drop_in.pos_embed is not None:
            self.pos_embed = PosEmbed(Place(base, drop_in.pos_embed), drop_in.first_position)
        self._blocks: tuple[Block, ...] = ()
        self.ln_final = self._make_norm("", "ln_final", Place(base, family.components["ln_final"]))
        self.unembed = Unembed(OutputEmbeddings(self.hf_model), drop_in)

    def _make_norm(self, prefix: str, part: str, place: Place) -> Any:
        instrumentation = self.instrumentation
        return norm_component(prefix + part, instrumentation.hook_points, place, instrumentation.family, part)

    def _make_block(self, index: int) -> Block:
        family, points, name = self.instrumentation.family, self.instrumentation.hook_points, f"blocks.{index}"
        components, drop_in = family.components, drop_in_of(family)
        block = Place(self.instrumentation.model, f"{components['blocks']}.{index}")

        def norm(part: str) -> dict[str, Any]:
            if part not in components:
                return {}
            path = components[part]
            if part == "ln2" and part in family.optional and not block.inside(path).exists:
                # Such blocks share the first.
                path = components["ln1"]
            return {part: self._make_norm(f"{name}.", part, block.inside(path))}

        attention = {"attn": Attention(f"{name}.attn", points, block, family, drop_in)}
        mlp = {"mlp": MLP(f"{name}.mlp", points, block, family, drop_in)}
        if family.block.norms == "before":
            parts = norm("ln1") | attention | norm("ln1_post") | norm("ln2") | mlp | norm("ln2_post")
        else:
            parts = attention | norm("ln1") | mlp | norm("ln2")
        return Block(name, points, parts, self.forward)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The layers as views with ``attn``, ``mlp``, ``ln1`` and ``ln2``, as many as the model has now."""
        number = self._n_layers()
        if number != len(self._blocks):
            made = len(self._blocks)
            self._blocks = self._blocks[:number] + tuple(self._make_block(index) for index in range(made, number))
        return self._blocks

    @property
    def cfg(self) -> HookedTransformerConfig:
        """The configuration under TransformerLens's field names, true of the model as it is now."""
        glance = self._look()
        if glance != self._glance:
            seen = self._fields()
            self._cfg.take_over(seen, self._seen)
            self._glance, self._seen = glance, seen
        return self._cfg

    @cfg.setter
    def cfg(self, cfg: HookedTransformerConfig) -> None:
        self._cfg = cfg

    def _look(self) -> tuple[Any, ...]:
        """What tells cheaply whether the model was changed, since the configuration is asked for at every turn."""
        embedding: Any = self.embed.module
        output: Any = self.unembed.module
        weight = embedding.weight
        pruned = vars(self.hf_model.config).get("pruned_heads") or {}
        sizes = weight.shape, weight.dtype, device_of(embedding), d_out_of(output)
        return self._n_layers(), sum(map(len, pruned.values())), *sizes

    def _fields(self) -> dict[str, Any]:
        """The fields of the configuration that a live model can change."""
        embedding: Any = self.embed.module
        config: Any = self.instrumentation.model.config
        d_model, d_vocab = config.hidden_size, vocabulary_of(embedding)
        blocks = self.blocks
        d_mlp = (blocks[0].mlp.d_mlp if blocks else None) or d_mlp_of(config)
        # Layers may differ after pruning; then the most that any has.
        n_heads = max((block.attn.n_heads for block in blocks), default=config.num_attention_heads)
        n_key_value_heads = max((block.attn.n_key_value_heads for block in blocks), default=n_heads)
        d_head = blocks[0].attn.d_head if blocks else config.hidden_size // config.num_attention_heads
        gated = self.instrumentation.family.mlp.gated
        return {
            "n_layers": len(blocks),
            "n_heads": n_heads,
            "n_key_value_heads": None if n_key_value_heads == n_heads else n_key_value_heads,
            "d_head": d_head,
            "d_mlp": d_mlp,
            "d_vocab": d_vocab,
            "d_vocab_out": d_out_of(self.unembed.module) or d_vocab,
            "n_params": len(blocks) * (4 * d_model * d_head * n_heads + (2 + gated) * d_model * d_mlp),
            "device": device_of(embedding),
            "dtype": embedding.weight.dtype if embedding.weight.is_floating_point() else self.hf_model.dtype,
        }

    def to(self, device_or_dtype: Any, print_details: bool = True, **kwargs: Any) -> Self:  # noqa: ARG002
        """Move or convert HuggingFace's model, and keep ``cfg.device`` and ``cfg.dtype`` true. Nothing is printed."""
        self.hf_model.to(device_or_dtype, **kwargs)
        fields = self._fields()
        # Also where nothing changed but somebody had set them to something else.
        self.cfg.device, self.cfg.dtype = fields["device"], fields["dtype"]
        return self

    def cuda(self, device: int | torch.device | None = None) -> Self:
        """``to("cuda")``."""
        return self.to(torch.device("cuda", device) if isinstance(device, int) else device or "cuda")

    def cpu(self) -> Self:
        """``to("cpu")``."""
        return self.to("cpu")

    def mps(self) -> Self:
        """``to("mps")``."""
        return self.to("mps")

    def move_model_modules_to_device(self) -> None:
        """Move HuggingFace's model to ``cfg.device``."""
        self.to(self.cfg.device)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load HuggingFace's parameters, by HuggingFace's names; what does not fit is reported by these names too.

        Weights by TransformerLens's names go to :meth:`load_and_process_state_dict`.
        """
        return self.hf_model.load_state_dict(state_dict, strict=strict, assign=assign)

    def init_weights(self) -> None:
        """Draw new weights as HuggingFace does for a new model; ``cfg.seed`` makes it repeatable."""
        if self.cfg.seed is not None:
            torch.manual_seed(self.cfg.seed)
        fresh = type(self.hf_model)(self.hf_model.config)
        self.hf_model.load_state_dict(fresh.state_dict())

    def load_sample_training_dataset(self, **kwargs: Any) -> Any:
        """Download, with TransformerLens's ``get_dataset``, texts like those that the family was trained on.

        They are kept in ``dataset``: OpenWebText for GPT-2, the Pile for others.
        """
        self.dataset = utils.get_dataset(drop_in_of(self.instrumentation.family).dataset, **kwargs)
        return self.dataset

    def sample_datapoint(
        self,
        tokenize: bool = False,
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
    ) -> Any:
        """A random text of ``dataset``, or its tokens ``[1, pos]``. Any list of ``{"text": ...}`` can be put there."""
        dataset = self.load_sample_training_dataset() if self.dataset is None else self.dataset
        text = dataset[random.randrange(len(dataset))]["text"]
        return self.to_tokens(text, prepend_bos=prepend_bos, padding_side=padding_side) if tokenize else text


def _without_prefix(module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: Any) -> None:  # noqa: ARG001
    own = prefix + _PREFIX
    for name in [name for name in state_dict if name.startswith(own)]:
        state_dict[prefix + name.removeprefix(own)] = state_dict.pop(name)


def _with_prefix(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:  # noqa: ARG001
    own = prefix + _PREFIX
    for name in [name for name in state_dict if name.startswith(prefix) and not name.startswith(own)]:
        state_dict[own + name.removeprefix(prefix)] = state_dict.pop(name)


def _report_without_prefix(module: nn.Module, incompatible: Any) -> None:  # noqa: ARG001
    for names in (incompatible.missing_keys, incompatible.unexpected_keys):
        names[:] = [re.sub(rf"(^|\.){re.escape(_PREFIX)}", r"\1", name, count=1) for name in names]
