"""Llama: what its models have in every release."""

import dataclasses

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import forms
from mishformer_lens.patchers.llama_like.components import COMPONENTS, DROP_IN, GROUPED_HEADS, RMS_NORM
from mishformer_lens.patchers.parts import MLP, Need

FAMILY = Family(
    name="llama",
    base_model="LlamaModel",
    components=COMPONENTS,
    norm=RMS_NORM,
    attention=GROUPED_HEADS,
    mlp=MLP(gated=True),
    needs={
        "pretraining_tp": Need(
            1,
            "releases up to 4.46 then run code that hook points are not in, and project by slices of the weights. To "
            "hook the model, set model.config.pretraining_tp to 1",
        ),
    },
    drop_in=dataclasses.replace(
        DROP_IN,
        models=(
            *(f"meta-llama/Meta-Llama-3-{size}{kind}" for size in ("8B", "70B") for kind in ("", "-Instruct")),
            *(f"meta-llama/Llama-3.1-{size}{kind}" for size in ("8B", "70B") for kind in ("", "-Instruct")),
            *(f"meta-llama/Llama-3.2-{size}{kind}" for size in ("1B", "3B") for kind in ("", "-Instruct")),
            "meta-llama/Llama-3.3-70B-Instruct",
            *(f"01-ai/Yi-{size}{kind}" for size in ("6B", "34B") for kind in ("", "-Chat")),
        ),
        names={
            # The first models of this name were never on HuggingFace's hub: they are given as hf_model=.
            **{f"llama-{size}": f"llama-{size}-hf" for size in ("7b", "13b", "30b", "65b")},
            **{
                f"llama-2-{size}{kind}": f"meta-llama/Llama-2-{size}{kind}-hf"
                for size in ("7b", "13b", "70b")
                for kind in ("", "-chat")
            },
            "meta-llama-2-70b-chat-hf": "meta-llama/Llama-2-70b-chat-hf",
            "codellamallama-2-7b": "codellama/CodeLlama-7b-hf",
            "codellama-7b-python": "codellama/CodeLlama-7b-Python-hf",
            "codellama-7b-instruct": "codellama/CodeLlama-7b-Instruct-hf",
        },
    ),
    template="llama_like",
    prefix="Llama",
    forms=forms.LLAMA,
)
