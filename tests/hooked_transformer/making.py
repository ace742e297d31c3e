"""The models that are compared: the drop-in, and TransformerLens 2.15.4's own with equal weights."""

import importlib
from pathlib import Path
from typing import Any

import torch
import transformers

from mishformer_lens import HookedTransformer
from tests.hooked_transformer.scenarios import D_VOCAB
from tests.models import D_MODEL, Case, make_model

TEXTS = ["The mill stood by the river.", "Velmira gave the lantern to Ordan, and Ordan thanked Velmira."]


def make_tokenizer(folder: Path, prepends_bos: bool = False) -> Any:
    """A byte-level tokenizer of 300 tokens, saved to and loaded from ``folder``."""
    # By name: in some releases it has types, in others it has none.
    tokenizers: Any = importlib.import_module("tokenizers")
    decoders, pre_tokenizers = tokenizers.decoders, tokenizers.pre_tokenizers
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=D_VOCAB - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    # Last, as in GPT-2: TransformerLens's generate() takes token 0 for one that is not padding.
    tokenizer.add_special_tokens(["<|endoftext|>"])
    if prepends_bos:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))]
        )
    fast = transformers.PreTrainedTokenizerFast(
        # Said aloud, since the oldest release warns where it is not.
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def make_hf_model(kind: str, attention: str = "eager", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A tiny model whose weights are the same in every release, with a vocabulary of 300 tokens."""
    model = make_model(Case(kind, attention, dtype), vocab_size=D_VOCAB, **changes)
    if model.config.hidden_size != D_MODEL:
        # Made for small models: in a large one the same numbers would amplify rounding from layer to layer.
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.data.mul_((D_MODEL / model.config.hidden_size) ** 0.5)
    if not model.config.tie_word_embeddings:
        # The module's name, by which the weights are drawn, changed between releases of transformers.
        parameter = model.get_output_embeddings().weight
        weights = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * D_MODEL**-0.5
        with torch.no_grad():
            parameter.copy_(weights)
    return model


def make_model_of(kind: str, tokenizer: Any | None = None, **arguments: Any) -> HookedTransformer:
    """The drop-in on such a model."""
    return HookedTransformer(make_hf_model(kind, **arguments), tokenizer)


def make_reference(kind: str, tokenizer: Any | None = None, processed: bool = False, **changes: Any) -> Any:
    """TransformerLens 2.15.4's own ``HookedTransformer`` with the same weights. Only where it is installed."""
    from transformer_lens import HookedTransformer as Reference
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights, convert_neox_weights

    hf_model = make_hf_model(kind, **changes)
    config = hf_model.config
    d_head = config.hidden_size // config.num_attention_heads
    is_gpt2 = kind == "gpt2"
    fields: dict[str, Any] = {"positional_embedding_type": "standard", "act_fn": "gelu_new"}
    if not is_gpt2:
        fields = {
            "positional_embedding_type": "rotary",
            "act_fn": "gelu",
            "rotary_dim": d_head // 2,
            "parallel_attn_mlp": kind == "gpt_neox",
        }
    cfg = HookedTransformerConfig(
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_ctx=config.max_position_embeddings,
        d_head=d_head,
        n_heads=config.num_attention_heads,
        d_mlp=config.n_inner if is_gpt2 else config.intermediate_size,
        d_vocab=D_VOCAB,
        eps=1e-5,
        normalization_type="LNPre" if processed else "LN",
        device="cpu",
        **fields,
    )
    model = Reference(cfg, tokenizer)
    state_dict = (convert_gpt2_weights if is_gpt2 else convert_neox_weights)(hf_model, cfg)
    state_dict = {name: value.detach().clone() for name, value in state_dict.items()}
    model.load_and_process_state_dict(
        state_dict,
        fold_ln=processed,
        center_writing_weights=processed,
        center_unembed=processed,
        fold_value_biases=processed,
    )
    return model.eval()
