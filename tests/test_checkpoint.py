"""The checkpoint that ships: it loads in the installed release as it is, and its heads do what its model card says."""

import copy
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from mishformer_lens.checkpoints import DEMO_TEXT, shipped_checkpoint

# A model this small is slower on several threads.
torch.set_num_threads(1)

FOLDER = shipped_checkpoint()
SCORES: dict[str, Any] = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))
LAYER, HEAD = SCORES["best_head"]["layer"], SCORES["best_head"]["head"]
TEXT = "Velmira walked,\n  and\tDorvan (don't ask) said: “Grüße!” 12.5 ✓"


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    loaded: tuple[Any, dict[str, Any]] = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    return loaded


@pytest.fixture(scope="module")
def model() -> Any:
    return load(FOLDER)[0]


@pytest.fixture(scope="module")
def untrained(model: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(model.config, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


def repeated_sequences() -> torch.Tensor:
    """The tokens ``[batch, pos]`` that the card's scores were measured on: BOS, and twice the same random tokens."""
    recipe = SCORES["repeated_sequences"]
    rng = random.Random(recipe["seed"])
    halves = [rng.sample(range(2, 512), recipe["half"]) for _ in range(recipe["count"])]
    return torch.tensor([[0, *half, *half] for half in halves])


def induction_scores(model: Any, tokens: torch.Tensor) -> list[list[float]]:
    """Per layer and head, the mean attention from each repeated token to all that followed it earlier."""
    rows = tokens.tolist()
    with torch.no_grad():
        attentions = model(tokens, output_attentions=True).attentions
    scores = []
    for pattern in attentions:
        found = []
        for batch, row in enumerate(rows):
            for query, token in enumerate(row):
                keys = [key for key in range(1, query + 1) if row[key - 1] == token]
                if keys:
                    found.append(pattern[batch, :, query, keys].sum(dim=-1))
        scores.append(torch.stack(found).mean(dim=0).tolist())
    return scores


def second_half_loss(model: Any, tokens: torch.Tensor) -> float:
    half = tokens.shape[1] // 2
    with torch.no_grad():
        logits = model(tokens).logits
    return cross_entropy(logits[:, half + 1 : -1].flatten(0, 1), tokens[:, half + 2 :].flatten()).item()


def continuation(model: Any, prompt: torch.Tensor, length: int) -> torch.Tensor:
    """The ``length`` tokens that greedy generation appends to ``prompt`` ``[batch, pos]``."""
    everything = torch.ones_like(prompt)
    tokens: torch.Tensor = model.generate(
        prompt, attention_mask=everything, max_new_tokens=length, min_new_tokens=length, do_sample=False
    )
    return tokens[:, prompt.shape[1] :]


def test_every_weight_finds_its_place(model: Any) -> None:
    _, info = load(FOLDER)
    assert not any(info.values()), info
    assert model.dtype == torch.float32


def test_a_weight_without_a_place_would_be_seen(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}), encoding="utf-8")
    assert load(folder)[1]["missing_keys"]


def test_the_config_means_the_same_in_every_release(model: Any) -> None:
    config = model.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.hidden_size) == (2, 4, 64)
    assert config.use_parallel_residual
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 0, 1)
    # A quarter of each head's 16 dimensions is rotated, at base 10000: two frequencies.
    frequencies = [buffer for name, buffer in model.named_buffers() if name.endswith("rotary_emb.inv_freq")]
    assert frequencies
    for each in frequencies:
        assert each.tolist() == pytest.approx([1.0, 0.01])


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 2_000_000


def test_text_survives_the_tokenizer(tokenizer: Any) -> None:
    tokens = tokenizer(TEXT).input_ids
    assert tokenizer.decode(tokens) == TEXT
    assert len(tokenizer(DEMO_TEXT).input_ids) < len(DEMO_TEXT) / 2


def test_special_tokens(tokenizer: Any) -> None:
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>",) * 2 + ("<|padding|>",)
    assert tokenizer("<|endoftext|><|padding|>").input_ids == [0, 1]
    assert not {0, 1} & set(tokenizer(TEXT).input_ids)
    assert len(tokenizer) == 512


def test_induction_scores_of_repeated_sequences(model: Any) -> None:
    recorded = SCORES["repeated_sequences"]["induction_scores"]
    for measured, claimed in zip(induction_scores(model, repeated_sequences()), recorded, strict=True):
        assert measured == pytest.approx(claimed, abs=1e-3)
    assert recorded[LAYER][HEAD] == SCORES["best_head"]["induction_score"] >= 0.7


def test_an_untrained_model_has_no_induction_head(untrained: Any) -> None:
    assert max(map(max, induction_scores(untrained, repeated_sequences()))) < 0.05


def test_induction_scores_of_the_demo_text(model: Any, tokenizer: Any) -> None:
    tokens = torch.tensor([[0, *tokenizer(DEMO_TEXT).input_ids]])
    for measured, claimed in zip(induction_scores(model, tokens), SCORES["demo_text"]["induction_scores"], strict=True):
        assert measured == pytest.approx(claimed, abs=1e-3)


def test_the_best_head_is_needed(model: Any) -> None:
    recorded = SCORES["repeated_sequences"]
    tokens = repeated_sequences()
    ablated = copy.deepcopy(model)
    ablated.gpt_neox.layers[LAYER].attention.dense.weight.data[:, 16 * HEAD : 16 * (HEAD + 1)] = 0
    whole, without = second_half_loss(model, tokens), second_half_loss(ablated, tokens)
    assert whole == pytest.approx(recorded["loss_second_half"], abs=1e-3)
    assert without == pytest.approx(recorded["loss_second_half_without_best_head"], abs=1e-3)
    assert whole < 0.2 * recorded["loss_first_half"]
    assert without > 2 * whole


def share_repeated(model: Any) -> float:
    """Of the tokens generated in the second half of a repeated sequence, the share that repeats the first half."""
    tokens = repeated_sequences()[:4]
    start = tokens.shape[1] // 2 + 9
    repeated = continuation(model, tokens[:, :start], 20) == tokens[:, start : start + 20]
    return repeated.float().mean().item()


def test_generation_repeats_a_sequence(model: Any) -> None:
    assert share_repeated(model) > 0.8


def test_an_untrained_model_repeats_nothing(untrained: Any) -> None:
    assert share_repeated(untrained) < 0.1


def test_the_model_card_has_the_recorded_numbers() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    recorded = SCORES["repeated_sequences"]
    for row in recorded["induction_scores"] + SCORES["demo_text"]["induction_scores"]:
        assert " | ".join(f"{score:.3f}" for score in row) in card
    for name in ("loss_second_half", "loss_second_half_without_best_head"):
        assert str(recorded[name]) in card
    assert f"--steps {SCORES['training']['steps']} --seed {SCORES['training']['seed']}" in card
    assert DEMO_TEXT in card
