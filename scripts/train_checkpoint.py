"""Train the small GPT-NeoX checkpoint that ships with the package, score its induction heads, write its model card.

    python scripts/train_checkpoint.py

Nothing is downloaded: the tokenizer and the model learn from text and token sequences that this script makes.
Everything random follows from `--seed`. The files are written in the form that the oldest supported release of
transformers reads; newer releases convert it as they load it.
"""

import argparse
import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from mishformer_lens.checkpoints import DEMO_TEXT, shipped_checkpoint

END_OF_TEXT, PADDING = "<|endoftext|>", "<|padding|>"
CONTEXT = 256
# Share of the steps, context, rows in a batch. Short rows come first: with them an induction head formed within 1500
# steps, with long ones alone not within 2000. The long ones then teach it to look back over the whole context.
PHASES = ((0.6, 64, 32), (0.4, CONTEXT, 8))
PEAK_LEARNING_RATE = 3e-3
EVALUATION = {"count": 16, "half": 64, "seed": 1}

# The keys of transformers 4.44, as Pythia's config.json has them: releases from 5.0 on derive `rope_parameters` and
# `dtype` from `rotary_pct`, `rotary_emb_base` and `torch_dtype`; a 4.x release would ignore the new names.
CONFIG: dict[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": CONTEXT,
    "model_type": "gpt_neox",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pad_token_id": 1,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 512,
}
TOKENIZER_CONFIG: dict[str, Any] = {
    "bos_token": END_OF_TEXT,
    "clean_up_tokenization_spaces": False,
    "eos_token": END_OF_TEXT,
    "model_max_length": CONTEXT,
    "pad_token": PADDING,
    # Named so, and not GPTNeoXTokenizerFast, tokenizer.json is used as it stands in every release.
    "tokenizer_class": "PreTrainedTokenizerFast",
}

ONSETS = [*"bdfgklmnprstvwz", "br", "dr", "gr", "pl", "st", "th", "tr"]
NUCLEI = [*"aeiou", "ai", "ea"]
CODAS = ["", *"lmnrsx", "sk", "th"]
OBJECTS = ["lantern", "rope", "basket", "letter", "kettle", "ladder", "map", "bell", "coat", "drum", "mirror"]
QUALITIES = ["copper", "blue", "heavy", "broken", "wooden", "small", "silver", "old", "painted", "borrowed"]
PLACES = ["mill", "harbour", "bridge", "market", "orchard", "chapel", "station", "garden", "well", "tower"]
SENTENCES = """
{a} carried a {thing} to the {place}.
{a} was waiting at the {place} with a {thing}.
{b} was waiting for {a} at the {place}.
{a} gave the {thing} to {b}.
{b} thanked {a} and left the {place}.
Then {a} and {b} walked from the {place} to the {other_place}.
"Where is the {thing}?" {a} asked.
"I left the {thing} at the {place}," said {b}.
{a} did not see {b} at the {place} that day.
The {thing} belonged to {b}, but {a} kept it in the {other_place}.
When {a} came back to the {place}, the {thing} was gone.
{b} wrote to {a} about the {thing}.
""".strip().splitlines()


def made_up_name(rng: random.Random) -> str:
    """Two made-up words such as `Velmira Tosgrath`: new in every story, so a model can only copy them."""
    words = []
    for _ in range(2):
        syllables = [rng.choice(ONSETS) + rng.choice(NUCLEI) + rng.choice(CODAS) for _ in range(2)]
        words.append("".join(syllables).capitalize())
    return " ".join(words)


def made_up_story(rng: random.Random) -> str:
    """Four to ten sentences about the same few people, things and places."""
    people = [made_up_name(rng) for _ in range(rng.randint(2, 3))]
    things = [f"{rng.choice(QUALITIES)} {rng.choice(OBJECTS)}" for _ in range(2)]
    places = rng.sample(PLACES, 2)
    sentences = []
    for _ in range(rng.randint(4, 10)):
        a, b = rng.sample(people, 2)
        place, other_place = rng.sample(places, 2)
        template = rng.choice(SENTENCES)
        sentences.append(template.format(a=a, b=b, thing=rng.choice(things), place=place, other_place=other_place))
    return " ".join(sentences)


def write_tokenizer(folder: Path, rng: random.Random) -> Tokenizer:
    """Train a byte-level BPE tokenizer on stories and write its files."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((made_up_story(rng) for _ in range(2000)), trainer)
    content = json.loads(tokenizer.to_str())
    # tokenizers 0.20 and later write a merge as a pair, which 0.19 (transformers 4.44) cannot read; all read "a b".
    merges = content["model"]["merges"]
    content["model"]["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    write_json(folder / "tokenizer.json", content)
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
    special_tokens = {key: TOKENIZER_CONFIG[key] for key in ("bos_token", "eos_token", "pad_token")}
    write_json(folder / "special_tokens_map.json", special_tokens)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def maybe_bos(rng: random.Random) -> list[int]:
    """Half of the rows start with a BOS and half do not, so that the model works either way."""
    return [0] if rng.random() < 0.5 else []


def repeated_row(rng: random.Random, context: int) -> list[int]:
    """Random sequences that each stand there two or three times: only looking back foretells a token."""
    row = maybe_bos(rng)
    while len(row) < context:
        sequence = [rng.randrange(CONFIG["vocab_size"]) for _ in range(rng.randint(4, context // 2 - 1))]
        row += sequence * rng.randint(2, 3)
    return row[:context]


def story_row(rng: random.Random, context: int, tokenizer: Tokenizer) -> list[int]:
    """Stories with a BOS between them."""
    row = maybe_bos(rng)
    while len(row) < context:
        row += [*tokenizer.encode(made_up_story(rng)).ids, 0]
    return row[:context]


def batches(rng: random.Random, tokenizer: Tokenizer, steps: int) -> Iterator[Tensor]:
    """Tokens [batch, pos] of each step: half of the rows repeated random sequences, half stories."""
    for share, context, rows in PHASES:
        for _ in range(round(share * steps)):
            repeated = [repeated_row(rng, context) for _ in range(rows // 2)]
            stories = [story_row(rng, context, tokenizer) for _ in range(rows // 2)]
            yield torch.tensor(repeated + stories)


def weights_by_name(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights, sorted by their names in transformers 4.44; from 5.13 on the un-embedding is called `lm_head`."""
    weights = {name.replace("lm_head.", "embed_out."): tensor for name, tensor in model.state_dict().items()}
    return dict(sorted(weights.items()))


def initial_model(folder: Path, seed: int) -> PreTrainedModel:
    """A model with the folder's config, its weights drawn here: releases of transformers draw them in other orders."""
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), attn_implementation="eager")
    generator = torch.Generator().manual_seed(seed)
    for weight in weights_by_name(model).values():
        if weight.dim() == 2:
            weight.normal_(std=CONFIG["initializer_range"], generator=generator)
    return model


def train(model: PreTrainedModel, data: Iterator[Tensor], steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps + 1, pct_start=0.05)
    model.train()
    progress = tqdm(data, desc="training", total=steps, unit="step")
    for tokens in progress:
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()


def repeated_sequences(count: int, half: int, seed: int) -> Tensor:
    """Tokens [count, 1 + 2 * half]: BOS and twice the same random sequence, in which no token occurs twice."""
    rng = random.Random(seed)
    halves = [rng.sample(range(2, CONFIG["vocab_size"]), half) for _ in range(count)]
    return torch.tensor([[0, *sequence, *sequence] for sequence in halves])


def induction_scores(model: PreTrainedModel, tokens: Tensor) -> list[list[float]]:
    """Per layer and head: the attention that a repeated token pays to what followed its earlier occurrences.

    The mean runs over the positions of `tokens` [batch, pos] whose token occurred before; the attention to what
    followed several earlier occurrences is added up. The model must run eager attention.
    """
    with torch.no_grad():
        attentions = model(tokens, output_attentions=True).attentions
    same_as_previous_key = tokens[:, :, None] == functional.pad(tokens, (1, 0), value=-1)[:, None, :-1]
    is_target = same_as_previous_key.tril()
    is_repeated = is_target.any(dim=-1)
    scores = []
    for pattern in attentions:
        attention_to_target = (pattern * is_target[:, None]).sum(dim=-1)
        of_heads = [attention_to_target[:, head][is_repeated].mean().item() for head in range(pattern.shape[1])]
        scores.append([round(score, 4) for score in of_heads])
    return scores


def half_losses(model: PreTrainedModel, tokens: Tensor) -> tuple[float, float]:
    """Mean loss in nats per token over the first half and over the second half of repeated sequences.

    The first token of the second half is left out: nothing tells where the repeat begins.
    """
    with torch.no_grad():
        logits = model(tokens).logits
    losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    half = losses.shape[1] // 2
    return losses[:, :half].mean().item(), losses[:, half + 1 :].mean().item()


def without_head(model: PreTrainedModel, layer: int, head: int) -> PreTrainedModel:
    """A copy in which the head's z adds nothing: its columns of the output projection are zero."""
    ablated = copy.deepcopy(model)
    width = CONFIG["hidden_size"] // CONFIG["num_attention_heads"]
    with torch.no_grad():
        ablated.gpt_neox.layers[layer].attention.dense.weight[:, head * width : (head + 1) * width] = 0
    return ablated


def best_score(scores: list[list[float]]) -> tuple[float, int, int]:
    """The highest of the scores, and its layer and head."""
    return max((score, layer, head) for layer, heads in enumerate(scores) for head, score in enumerate(heads))


def evaluate(model: PreTrainedModel, untrained: PreTrainedModel, tokenizer: Tokenizer) -> dict[str, Any]:
    """Induction scores and losses on repeated random sequences and on the demo's text; losses without the best head."""
    tokens = repeated_sequences(**EVALUATION)
    text_tokens = torch.tensor([[0, *tokenizer.encode(DEMO_TEXT).ids]])
    scores = induction_scores(model, tokens)
    score, layer, head = best_score(scores)
    ablated = without_head(model, layer, head)
    losses, ablated_losses = half_losses(model, tokens), half_losses(ablated, tokens)
    with torch.no_grad():
        text_loss, ablated_text_loss = (m(text_tokens, labels=text_tokens).loss.item() for m in (model, ablated))
    return {
        "best_head": {"layer": layer, "head": head, "induction_score": score},
        "repeated_sequences": {
            **EVALUATION,
            "induction_scores": scores,
            "best_induction_score_untrained": best_score(induction_scores(untrained, tokens))[0],
            "best_induction_score_without_bos": best_score(induction_scores(model, tokens[:, 1:]))[0],
            "loss_first_half": round(losses[0], 4),
            "loss_second_half": round(losses[1], 4),
            "loss_first_half_without_best_head": round(ablated_losses[0], 4),
            "loss_second_half_without_best_head": round(ablated_losses[1], 4),
        },
        "demo_text": {
            "induction_scores": induction_scores(model, text_tokens),
            "loss": round(text_loss, 4),
            "loss_without_best_head": round(ablated_text_loss, 4),
        },
    }


def score_table(scores: list[list[float]]) -> str:
    """A Markdown table: a row for each layer, a column for each head."""
    heads = range(len(scores[0]))
    rows = [["layer", *(f"head {head}" for head in heads)], ["---" for _ in range(len(heads) + 1)]]
    rows += [[str(layer), *(f"{score:.3f}" for score in row)] for layer, row in enumerate(scores)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def model_card(scores: dict[str, Any], parameters: int) -> str:
    """The model card, its numbers taken from what was measured."""
    best, random_tokens, text = scores["best_head"], scores["repeated_sequences"], scores["demo_text"]
    phases = ", then ".join(f"{share:.0%} of the steps with {rows} rows of {length}" for share, length, rows in PHASES)
    template = Path(__file__).with_name("checkpoint_card.md").read_text(encoding="utf-8")
    return template.format(
        **scores["training"],
        layers=CONFIG["num_hidden_layers"],
        vocabulary=CONFIG["vocab_size"],
        parameters=parameters,
        phases=phases,
        learning_rate=PEAK_LEARNING_RATE,
        count=random_tokens["count"],
        half=random_tokens["half"],
        random_table=score_table(random_tokens["induction_scores"]),
        untrained=random_tokens["best_induction_score_untrained"],
        without_bos=random_tokens["best_induction_score_without_bos"],
        text_table=score_table(text["induction_scores"]),
        text=DEMO_TEXT,
        best_layer=best["layer"],
        best_head=best["head"],
        best_score=best["induction_score"],
        first=random_tokens["loss_first_half"],
        first_ablated=random_tokens["loss_first_half_without_best_head"],
        second=random_tokens["loss_second_half"],
        second_ablated=random_tokens["loss_second_half_without_best_head"],
        text_loss=text["loss"],
        text_ablated=text["loss_without_best_head"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=shipped_checkpoint(), help="folder to write (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=4000, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of data and weights (default: %(default)s)")
    arguments = parser.parse_args()
    folder, steps, seed = arguments.out, arguments.steps, arguments.seed

    torch.set_num_threads(1)  # sums are added up in another order on more threads
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    write_json(folder / "config.json", CONFIG)
    tokenizer = write_tokenizer(folder, rng)
    model = initial_model(folder, seed)
    train(model, batches(rng, tokenizer, steps), steps)
    (folder / "model.safetensors").write_bytes(save(weights_by_name(model), metadata={"format": "pt"}))

    trained = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    versions = {module.__name__: module.__version__ for module in (torch, transformers, tokenizers)}
    scores = {
        "training": {"steps": steps, "seed": seed, **versions},
        **evaluate(trained, initial_model(folder, seed), tokenizer),
    }
    write_json(folder / "scores.json", scores)
    card = model_card(scores, trained.num_parameters())
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(card[card.index("## Scores") :])


if __name__ == "__main__":
    main()
