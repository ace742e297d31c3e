"""``generate`` with TransformerLens's arguments, by HuggingFace's generation; hooks are active throughout."""

# ruff: noqa: A002 - the arguments' names are TransformerLens's

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import torch
from rich.progress import Progress
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from mishformer_lens.errors import ForwardArgumentsError, UnknownArgumentError
from mishformer_lens.hooked_transformer.projections import d_out_of, vocabulary_of
from mishformer_lens.hooked_transformer.running import Running
from mishformer_lens.hooked_transformer.tokens import USE_DEFAULT_VALUE, PaddingSide, is_text
from mishformer_lens.suggestions import did_you_mean

_GIVEN_BY_INPUT: Final = frozenset({"inputs", "input_ids", "inputs_embeds"})

# Names of the parameters that gather all others.
_CATCH_ALL: Final = frozenset({"kwargs", "model_kwargs", "deprecated_arguments"})


class _FrequencyPenalty(LogitsProcessor):
    """Lower each token's logit by ``penalty`` for each time that it occurred, as TransformerLens does.

    TransformerLens divides by the temperature first, HuggingFace afterwards; hence the product.
    """

    def __init__(self, penalty: float, temperature: float) -> None:
        self.penalty = penalty * temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        counts = torch.zeros_like(scores).scatter_add_(1, input_ids, torch.ones_like(input_ids, dtype=scores.dtype))
        return scores - self.penalty * counts


class _Tick(StoppingCriteria):
    def __init__(self, progress: Progress, total: int) -> None:
        self.progress = progress
        self.task = progress.add_task("generating", total=total)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
        self.progress.advance(self.task)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class Generation(Running):
    """``generate``."""

    @torch.no_grad()
    def generate(
        self,
        input: str | list[str] | torch.Tensor = "",
        max_new_tokens: int = 10,
        stop_at_eos: bool = True,
        eos_token_id: int | Sequence[int] | None = None,
        do_sample: bool = True,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float = 1.0,
        freq_penalty: float = 0.0,
        use_past_kv_cache: bool = True,
        prepend_bos: bool | None = USE_DEFAULT_VALUE,
        padding_side: PaddingSide | None = USE_DEFAULT_VALUE,
        return_type: Literal["input", "str", "tokens", "embeds"] = "input",
        verbose: bool = True,
        **generation_kwargs: Any,
    ) -> Any:
        """Continue text, tokens ``[batch, pos]`` or token embeddings ``[batch, pos, d_model]``.

        Args:
            max_new_tokens: how many tokens to add at most.
            stop_at_eos: end a sequence at an end-of-text token, and pad it from there on with that token.
            eos_token_id: that token, or several; None: the tokenizer's.
            do_sample: draw from the distribution; otherwise take the most probable token.
            top_k: draw from so many tokens only. ``top_p`` is ignored then, as in TransformerLens.
            top_p: draw from the most probable tokens that together have this probability.
            temperature: what logits are divided by; 0 is greedy.
            freq_penalty: what a token's logit loses for each time that it occurred already, after the temperature.
            use_past_kv_cache: keep keys and values instead of running the whole sequence for every token. Hooks then
                see only the new position.
            prepend_bos, padding_side: override the defaults for text. Several texts of different lengths are padded
                on the left unless ``padding_side`` says otherwise.
            return_type: ``str``, ``tokens`` or ``embeds``; ``input``: as the input. Tokens and text begin with the
                input, unless that was embeddings.
            verbose: show a progress bar.
            generation_kwargs: anything else that HuggingFace's ``generate`` takes, as ``streamer=``, ``num_beams=`` or
                ``pad_token_id=``. ``logits_processor`` and ``stopping_criteria`` act beside those that the arguments
                above stand for, ``attention_mask`` ``[batch, pos]`` takes the place of the mask of what is no padding.
                With ``return_dict_in_generate=True`` HuggingFace's output is returned as it is.

        Raises:
            TokenizerError: text without a tokenizer, or tokens out of range.
            ForwardArgumentsError: another ``return_type``, or no end-of-text token is known.
            UnknownArgumentError: HuggingFace's ``generate`` has no such argument, or ``input`` stands for it here.
        """
        self._check_generation_arguments(generation_kwargs)
        if return_type not in ("input", "str", "tokens", "embeds"):
            raise ForwardArgumentsError(
                f"return_type is {return_type!r}; it must be 'input', 'str', 'tokens' or 'embeds'."
            )
        if padding_side is None and isinstance(input, Sequence) and not isinstance(input, str):
            padding_side = "left"
        with self._defaults(prepend_bos, padding_side):
            inputs = self._inputs(
                input, prepend_bos, generation_kwargs.pop("attention_mask", None), None, is_residual=False
            )
            mask = inputs.own_mask
        given = inputs.embeddings if inputs.tokens is None else inputs.tokens
        assert given is not None
        if mask is None:
            mask = torch.ones(given.shape[:2], dtype=torch.long, device=given.device)
        end, padding = self._end_tokens(stop_at_eos, eos_token_id)
        arguments: dict[str, Any] = {
            "inputs_embeds" if inputs.tokens is None else "input_ids": given,
            "attention_mask": mask,
            "max_new_tokens": max_new_tokens,
            "eos_token_id": end,
            "pad_token_id": padding,
            "use_cache": use_past_kv_cache,
            **_sampling(do_sample, top_k, top_p, temperature),
        }
        processors = LogitsProcessorList(generation_kwargs.pop("logits_processor", None) or [])
        if freq_penalty and arguments["do_sample"]:
            processors.append(_FrequencyPenalty(freq_penalty, temperature))
        criteria = StoppingCriteriaList(generation_kwargs.pop("stopping_criteria", None) or [])
        self.eval()
        with Progress(disable=not verbose, transient=True) as progress:
            criteria.append(_Tick(progress, max_new_tokens))
            arguments |= {"logits_processor": processors, "stopping_criteria": criteria}
            output = self.hf_model.generate(**arguments | generation_kwargs)
        if not isinstance(output, torch.Tensor):
            return output
        if return_type == "input":
            return_type = "str" if is_text(input) else "embeds" if inputs.tokens is None else "tokens"
        return self._returned(output, inputs.embeddings, return_type)

    def _check_generation_arguments(self, given: Mapping[str, Any]) -> None:
        taken = _GIVEN_BY_INPUT & given.keys()
        if taken:
            raise UnknownArgumentError(f"generate() takes {sorted(taken)[0]} as input, its first argument.")
        if not isinstance(self.hf_model, PreTrainedModel):
            return  # A wrapper, as peft's, takes arguments of its own. What nobody takes HuggingFace refuses.
        functions = (self.hf_model.generate, self.hf_model.prepare_inputs_for_generation, self.hf_model.forward)
        known = set(GenerationConfig().to_dict()).union(*(inspect.signature(each).parameters for each in functions))
        unknown = [name for name in given if name not in known or name in _CATCH_ALL]
        if unknown:
            raise UnknownArgumentError(
                f"generate() has no argument {unknown[0]!r}, neither here nor in HuggingFace's. "
                f"{did_you_mean(unknown[0], [*known, *inspect.signature(self.generate).parameters])}"
            )

    def _returned(self, tokens: torch.Tensor, embeddings: torch.Tensor | None, return_type: str) -> Any:
        if return_type == "tokens":
            return tokens
        if return_type == "embeds":
            new = self.embed(tokens)
            return new if embeddings is None else torch.cat([embeddings, new], dim=1)
        tokenizer = self._require_tokenizer()
        texts = [tokenizer.decode(row, skip_special_tokens=True) for row in tokens.tolist()]
        return texts[0] if len(texts) == 1 else texts

    def _end_tokens(self, stop_at_eos: bool, eos_token_id: int | Sequence[int] | None) -> tuple[Any, int]:
        """The tokens that end a sequence and the one to pad it with."""
        if not stop_at_eos:
            # One that no model predicts: the generation configuration has another, which None would bring back.
            return [max(d_out_of(self.unembed.module) or 0, vocabulary_of(self.embed.module))], 0
        own = None if self.tokenizer is None else self.tokenizer.eos_token_id
        end = own if eos_token_id is None else eos_token_id
        if end is None:
            raise ForwardArgumentsError(
                "stop_at_eos needs to know the end-of-text token: pass eos_token_id=, or stop_at_eos=False."
            )
        ends = [end] if isinstance(end, int) else list(end)
        return ends, ends[0] if own is None or isinstance(end, int) else own


def _sampling(do_sample: bool, top_k: int | None, top_p: float | None, temperature: float) -> dict[str, Any]:
    if not do_sample or temperature == 0.0:
        # Spelled out, so that a checkpoint's generation configuration does not ask for sampling after all.
        return {"do_sample": False, "top_k": None, "top_p": None, "temperature": None}
    # HuggingFace draws from 50 tokens by default; 0 is all of them.
    return {
        "do_sample": True,
        "top_k": top_k or 0,
        "top_p": 1.0 if top_p is None or top_k else top_p,
        "temperature": float(temperature),
    }
