"""The drop-in :class:`HookedTransformer`."""

import random
from typing import Any, Self

import torch
from torch import nn

from mishformer_lens.errors import UnsupportedModelError
from mishformer_lens.hooked_transformer.caching import Caching
from mishformer_lens.hooked_transformer.components import MLP, Attention, Block, Embed, LayerNorm, PosEmbed, Unembed
from mishformer_lens.hooked_transformer.config import config_of
from mishformer_lens.hooked_transformer.generation import Generation
from mishformer_lens.hooked_transformer.layouts import LAYOUTS
from mishformer_lens.hooked_transformer.loading import Loading
from mishformer_lens.hooked_transformer.tokens import USE_DEFAULT_VALUE, PaddingSide
from mishformer_lens.hooked_transformer.transformer_lens_compat import utils
from mishformer_lens.instrumentation import instrument

_PREFIX = "hf_model."


class HookedTransformer(Loading, Generation, Caching):
    """TransformerLens's ``HookedTransformer``, running HuggingFace's own model.

    Logits, gradients and generated tokens are HuggingFace's, bit by bit, until a hook acts or the weights are
    processed. The weights are HuggingFace's parameters; nothing is copied. ``state_dict()`` has HuggingFace's names.

    Args:
        hf_model: a GPT-2 or GPT-NeoX model of transformers with a language-modelling head. It is hooked in place.
        tokenizer: for methods that take or give text; a copy is kept.
        default_padding_side: on which side several texts are padded, ``left`` or ``right``.

    Raises:
        UnsupportedModelError: the model is of another family, or has no language-modelling head.
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
        self.instrumentation = instrument(hf_model)
        if hf_model.get_output_embeddings() is None:  # type: ignore[operator]
            raise UnsupportedModelError(
                f"{type(hf_model).__name__} has no language-modelling head. Load it with AutoModelForCausalLM, or use "
                "mishformer_lens.instrument(model) for its hook points alone."
            )
        self.hf_model = hf_model
        self._make_parts()
        self.cfg = config_of(hf_model, self.instrumentation.family.name, self.blocks[0].mlp.W_in.shape[1])
        self.tokenizer = None
        self.dataset: Any | None = None
        if tokenizer is not None:
            self.set_tokenizer(tokenizer, default_padding_side)
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)
        # Not train(), which would give this mode to every part: some may be frozen in another.
        self.training = hf_model.training
        self.setup()

    def _make_parts(self) -> None:
        base, family = self.instrumentation.model, self.instrumentation.family
        points, layout = self.instrumentation.hook_points, LAYOUTS[family.name]
        self.embed = Embed(base.get_submodule(layout.embed))
        if layout.pos_embed is not None:
            self.pos_embed = PosEmbed(base.get_submodule(layout.pos_embed))
        blocks = base.get_submodule(family.components["blocks"]).children()
        self.blocks = tuple(self._make_block(f"blocks.{index}", block) for index, block in enumerate(blocks))
        self.ln_final = LayerNorm("ln_final", points, _layer_norm(base, family.components["ln_final"]))
        self.unembed = Unembed(self._output_embeddings())

    def _output_embeddings(self) -> nn.Module:
        """HuggingFace's module that gives the logits."""
        head: nn.Module = self.hf_model.get_output_embeddings()
        return head

    def _make_block(self, name: str, block: nn.Module) -> Block:
        family, points = self.instrumentation.family, self.instrumentation.hook_points
        layout = LAYOUTS[family.name]
        attention = Attention(
            f"{name}.attn",
            points,
            block.get_submodule(layout.qkv),
            block.get_submodule(layout.output),
            int(self.instrumentation.model.config.num_attention_heads),  # type: ignore[union-attr, arg-type]
            family.qkv_layout,
        )
        projections = (block.get_submodule(layout.mlp_in), block.get_submodule(layout.mlp_out))
        mlp = MLP(f"{name}.mlp", points, block.get_submodule(family.components["mlp"]), projections)
        ln1, ln2 = (
            LayerNorm(f"{name}.{norm}", points, _layer_norm(block, family.components[norm])) for norm in ("ln1", "ln2")
        )
        return Block(name, points, (ln1, attention, ln2, mlp), self.forward)

    def to(self, device_or_dtype: Any, print_details: bool = True, **kwargs: Any) -> Self:  # noqa: ARG002
        """Move or convert HuggingFace's model, and keep ``cfg.device`` and ``cfg.dtype`` true. Nothing is printed."""
        self.hf_model.to(device_or_dtype, **kwargs)
        self.cfg.device, self.cfg.dtype = self.embed.W_E.device, self.embed.W_E.dtype
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

    def init_weights(self) -> None:
        """Draw new weights as HuggingFace does for a new model; ``cfg.seed`` makes it repeatable."""
        if self.cfg.seed is not None:
            torch.manual_seed(self.cfg.seed)
        fresh = type(self.hf_model)(self.hf_model.config)
        self.hf_model.load_state_dict(fresh.state_dict())

    def load_sample_training_dataset(self, **kwargs: Any) -> Any:
        """Download, with TransformerLens's ``get_dataset``, texts like those that the family was trained on.

        They are kept in ``dataset``: OpenWebText for GPT-2, the Pile for GPT-NeoX.
        """
        name = {"gpt2": "openwebtext", "gpt_neox": "pile"}[self.instrumentation.family.name]
        self.dataset = utils.get_dataset(name, **kwargs)
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


def _layer_norm(parent: nn.Module, name: str) -> nn.LayerNorm:
    module = parent.get_submodule(name)
    assert isinstance(module, nn.LayerNorm)  # instrument() refuses anything else
    return module


def _without_prefix(module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: Any) -> None:  # noqa: ARG001
    own = prefix + _PREFIX
    for name in [name for name in state_dict if name.startswith(own)]:
        state_dict[prefix + name.removeprefix(own)] = state_dict.pop(name)


def _with_prefix(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:  # noqa: ARG001
    own = prefix + _PREFIX
    for name in [name for name in state_dict if name.startswith(prefix) and not name.startswith(own)]:
        state_dict[own + name.removeprefix(prefix)] = state_dict.pop(name)
