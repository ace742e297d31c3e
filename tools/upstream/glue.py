"""What HuggingFace's common tests ask of a family's test case: its model classes, a tiny configuration, inputs.

The files that give it for each family are in HuggingFace's repository, and in no release. This is written for any
family of decoders, from what transformers says of it. The tests of generation are missing in the same way; those here
stand in their place.
"""

from __future__ import annotations

import importlib
import random
import sys
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedModel

from mishformer_lens.patchers import FAMILIES, Family

SIZES = {
    "vocab_size": 99,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 37,
    "max_position_embeddings": 512,
    "bos_token_id": 97,
    "eos_token_id": 97,
    "pad_token_id": 98,
    "num_labels": 3,
}
"""Sizes of the tiny models, by the names that HuggingFace has for all of them."""


class RepeatableRandom(random.Random):
    """A generator that starts at the same place whenever it is told to start at an arbitrary one."""

    def seed(self, a: Any = None, version: int = 2) -> None:
        super().seed(0 if a is None else a, version)


def model_classes(family: Family) -> tuple[type[PreTrainedModel], ...]:
    """Every model of a family that a user makes.

    Those with a loss of all their parameters are the first: tests of training in earlier releases end at the others.
    """
    module = importlib.import_module(family.module_name)
    found = [
        cls
        for cls in vars(module).values()
        if isinstance(cls, type)
        and issubclass(cls, PreTrainedModel)
        and cls.__module__ == module.__name__
        and not cls.__name__.endswith("PreTrainedModel")
    ]
    last = {family.base_model: 2, "GPT2DoubleHeadsModel": 1}
    return tuple(sorted(found, key=lambda cls: (last.get(cls.__name__, 0), cls.__name__)))


class ModelTester:
    """What the tests call `model_tester`."""

    batch_size = 5
    seq_length = 7
    num_choices = 4
    is_training = True

    def __init__(self, family: Family, changes: dict[str, Any]) -> None:
        self.family = family
        self.changes = changes
        for name, value in SIZES.items():
            setattr(self, name, value)
        classes = {cls.__name__: cls for cls in model_classes(family)}
        self.causal_lm_class = next(
            (cls for name, cls in classes.items() if name.endswith(("ForCausalLM", "LMHeadModel"))), None
        )

    def get_config(self) -> Any:
        """A new tiny configuration."""
        cls = CONFIG_MAPPING[self.family.name]
        # 5.0's GPT-NeoX reads a pad_token_id that its configuration does not have by itself.
        known = {*cls().to_dict(), *cls.attribute_map, "pad_token_id"}
        return cls(**{name: value for name, value in SIZES.items() if name in known}, **self.changes)

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, Any]]:
        """A configuration, and the inputs of a base model."""
        ids = torch.randint(0, SIZES["pad_token_id"] - 1, (self.batch_size, self.seq_length))
        return self.get_config(), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Glue:
    """The part of a test case that HuggingFace has in `tests/models/<family>`."""

    family: Family
    changes: dict[str, Any]
    fx_compatible = True
    # The loss of GPT-2 with two heads is that of one.
    test_all_params_have_gradient = False

    def setUp(self) -> None:
        # It starts anywhere, at import and in the middle of tests: runs could not be compared.
        common: Any = sys.modules["tests.test_modeling_common"]
        common.global_rng = RepeatableRandom(0)
        self.model_tester = ModelTester(self.family, self.changes)

    def _prepare_for_class(self, inputs_dict: dict[str, Any], model_class: Any, return_labels: bool = False) -> Any:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)  # type: ignore[misc]
        if return_labels and model_class.__name__.endswith("DoubleHeadsModel"):
            tester = self.model_tester
            choices = (tester.batch_size, tester.num_choices)
            del inputs["attention_mask"]
            inputs["input_ids"] = inputs["input_ids"].unsqueeze(1).expand(*choices, -1).contiguous()
            inputs["labels"] = torch.zeros_like(inputs["input_ids"])
            inputs["mc_token_ids"] = torch.zeros(choices, dtype=torch.long)
            inputs["mc_labels"] = torch.zeros(tester.batch_size, dtype=torch.long)
        return inputs

    def _check_generation(self, **arguments: Any) -> None:
        """Generates with every class that can, from prompts of which one has padding on its left."""
        for model_class in self.all_generative_model_classes:  # type: ignore[attr-defined]
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            inputs["attention_mask"][0, :3] = 0
            model = model_class(config).eval()
            lengths = {"max_new_tokens": 6, "min_new_tokens": 6}
            result = model.generate(**inputs, **lengths, return_dict_in_generate=True, **arguments)
            assert result.sequences.shape == (self.model_tester.batch_size, self.model_tester.seq_length + 6)

    def test_glue_generate_greedily(self) -> None:
        self._check_generation(do_sample=False)

    def test_glue_generate_without_cache(self) -> None:
        self._check_generation(do_sample=False, use_cache=False)

    def test_glue_generate_with_every_output(self) -> None:
        wanted = {"output_scores": True, "output_logits": True, "output_hidden_states": True, "output_attentions": True}
        self._check_generation(do_sample=False, **wanted)

    def test_glue_generate_samples(self) -> None:
        self._check_generation(do_sample=True, top_k=20)

    def test_glue_generate_by_beams(self) -> None:
        self._check_generation(do_sample=False, num_beams=3)

    def test_glue_generate_with_a_static_cache(self) -> None:
        self._check_generation(do_sample=False, cache_implementation="static")


def default_glue(family_name: str) -> type[Glue]:
    """The glue of one family, with the attention that HuggingFace chooses, as a class to inherit from."""
    return _glue(FAMILIES[family_name], {})


def eager_glue(family_name: str) -> type[Glue]:
    """As :func:`default_glue`, with eager attention, which has patterns; and with the other form of block, if any."""
    family = FAMILIES[family_name]
    changes: dict[str, Any] = {"attn_implementation": "eager"}
    switch = family.block.parallel
    if isinstance(switch, str):
        default = CONFIG_MAPPING[family_name]().to_dict()
        changes[switch] = not default[switch]
    return _glue(family, changes)


def _glue(family: Family, changes: dict[str, Any]) -> type[Glue]:
    classes = model_classes(family)
    return type(
        "FamilyGlue",
        (Glue,),
        {
            "family": family,
            "changes": changes,
            "all_model_classes": classes,
            # GPT-NeoX cannot.
            "test_pruning": any("_prune_heads" in vars(cls) for cls in classes),
            "all_generative_model_classes": tuple(cls for cls in classes if cls.can_generate()),
        },
    )
