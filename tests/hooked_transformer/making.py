"""The models that are compared: the drop-in, and TransformerLens 2.15.4's own with equal weights."""

from pathlib import Path
from typing import Any

import torch
import transformers

from mishformer_lens import HookedTransformer
from tests.hooked_transformer.scenarios import D_VOCAB
from tests.models import D_HEAD, D_MLP, D_MODEL, MAX_POS, N_HEADS, N_LAYERS, Case, make_model

TEXTS = ["The mill stood by the river.", "Velmira gave the lantern to Ordan, and Ordan thanked Velmira."]


def make_tokenizer(folder: Path, prepends_bos: bool = False) -> Any:
    """A byte-level tokenizer of 300 tokens, saved to and loaded from ``folder``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=D_VOCAB,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    if prepends_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))]
        )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    fast.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def make_hf_model(kind: str, attention: str = "eager", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A tiny model whose weights are the same in every release, with a vocabulary of 300 tokens."""
    model = make_model(Case(kind, attention, dtype), vocab_size=D_VOCAB, **changes)
    if not model.config.tie_word_embeddings:
        # The module's name, by which the weights are drawn, changed between releases of transformers.
        weights = torch.randn(D_VOCAB, D_MODEL, generator=torch.Generator().manual_seed(5)) * D_MODEL**-0.5
        with torch.no_grad():
            model.get_output_embeddings().weight.copy_(weights)
    return model


def make_model_of(kind: str, tokenizer: Any | None = None, **arguments: Any) -> HookedTransformer:
    """The drop-in on such a model."""
    return HookedTransformer(make_hf_model(kind, **arguments), tokenizer)


def make_reference(kind: str, tokenizer: Any | None = None, processed: bool = False) -> Any:
    """TransformerLens 2.15.4's own ``HookedTransformer`` with the same weights. Only where it is installed."""
    from transformer_lens import HookedTransformer as Reference
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights, convert_neox_weights

    hf_model = make_hf_model(kind)
    is_gpt2 = kind == "gpt2"
    fields: dict[str, Any] = {"positional_embedding_type": "standard", "act_fn": "gelu_new"}
    if not is_gpt2:
        fields = {
            "positional_embedding_type": "rotary",
            "act_fn": "gelu",
            "rotary_dim": D_HEAD // 2,
            "parallel_attn_mlp": kind == "gpt_neox",
        }
    cfg = HookedTransformerConfig(
        n_layers=N_LAYERS,
        d_model=D_MODEL,
        n_ctx=MAX_POS,
        d_head=D_HEAD,
        n_heads=N_HEADS,
        d_mlp=D_MLP,
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
