"""What the blocks of a family consist of. Its hook points and what serves them follow from it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

PART_BY_PART = "part head d_head"
"""The layout of a projection that gives all queries, then all keys, then all values: these may have fewer heads."""

GROUP_BY_GROUP = "group head d_head"
"""The layout of one that gives for each head of keys the queries that share it, that key, and its value."""


@dataclasses.dataclass(frozen=True)
class Norm:
    """A family's norms.

    Attributes:
        kind: ``layer``: ``hook_normalized`` comes after gain and bias; ``rms``: before the gain.
        own: whether they are of a class of the family's own; else of torch's.
        gain_from_one: whether the gain is one and what the weight adds to it.
        eps: the norm's attribute that has what is added to the variance, or the number itself.
    """

    kind: Literal["layer", "rms"]
    own: bool
    # What follows says where numbers are, and nothing of hook points: not shown, so that records stay as they are.
    gain_from_one: bool = dataclasses.field(default=False, repr=False)
    eps: str | float = dataclasses.field(default="eps", repr=False)


@dataclasses.dataclass(frozen=True)
class Attention:
    """A family's attention.

    Attributes:
        rotary: whether queries and keys are rotated by their positions.
        qkv_layout: the order of the outputs of one projection for queries, keys and values, as an einops axis. None
            where each has its own.
        query_key_norm: the axes of what the norms of queries and keys get; None where there are none. ``each head``: as
            ``head pos``, and each head has a norm of its own, of torch's.
        norms_in_turn: whether queries are normalised before keys are projected.
        clipped: the attention's attribute that has by what queries, keys and values are clipped, in place; ``config.…``
            is the configuration's. None where they never are.
        head_size: the attention's attribute that has the width of a head.
        n_heads: the attention's attribute that has the number of heads; ``config.…`` is the configuration's. None where
            it has none in some releases, and as many as the model's width has room for.
        n_key_value_heads: likewise the number of heads of keys and values. None where there are as many as of queries.
        configured_keys: the configuration's field that says as much; or the number, where it is always the same.
        adjacent_pairs: whether two neighbouring numbers are rotated together, rather than one of either half.
    """

    rotary: bool
    qkv_layout: str | None = None
    query_key_norm: Literal["pos head", "head pos", "joined", "each head"] | None = None
    norms_in_turn: bool = False
    clipped: str | None = None
    head_size: str = "head_dim"
    n_heads: str | None = None
    n_key_value_heads: str | None = None
    configured_keys: str | int = "num_key_value_heads"
    adjacent_pairs: bool = dataclasses.field(default=False, repr=False)

    def has_fewer_keys(self, config: Any) -> bool:
        """Whether keys and values have fewer heads than queries in a model with that configuration."""
        if self.n_key_value_heads is None:
            return False
        keys = self.configured_keys
        number = keys if isinstance(keys, int) else getattr(config, keys)
        return bool(number != config.num_attention_heads)


@dataclasses.dataclass(frozen=True)
class MLP:
    """A family's MLP: ``gated``, where the activation of one projection multiplies another."""

    gated: bool = False


PLAIN_MLP = MLP()


@dataclasses.dataclass(frozen=True)
class Experts:
    """A family's mixtures of experts, which stand in the place of the MLP in all blocks or in some.

    Attributes:
        in_every_block: whether no block has an MLP instead.
        shared_first: whether the shared expert, where there is one, runs before the others.
        d_mlp: how the code of a mixture calls the width of an expert, in releases where each expert is a module.
        as_modules: what HuggingFace calls parts otherwise in those releases.
    """

    in_every_block: bool = False
    shared_first: bool = False
    d_mlp: str = ""
    as_modules: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True)
class Block:
    """How a block puts its parts together.

    Attributes:
        norms: where ``ln1`` and ``ln2`` stand: before attention and MLP; after them; or in the residual stream itself,
            after what attention or MLP gives was added to it.
        norms_before: the block's attribute that tells whether they stand ``before``, where models of the family differ;
            else they stand in the ``stream``. None where they do not differ.
        parallel: whether attention and MLP read the same residual stream; such blocks have no ``hook_resid_mid``. A
            configuration field that tells so, where models of the family differ.
        shared_norm: whether one norm serves both: ``ln1`` is what attention sees of it, ``ln2`` what the MLP does. Then
            ``ln2`` is the same module as ``ln1``; or, where models of the family differ, an optional part, and those
            that lack it share ``ln1``.
        written_inside: the parts whose own code adds what they write to the residual stream: ``hook_attn_out`` is in
            ``attn`` then, ``hook_mlp_out`` in ``mlp``.
    """

    norms: Literal["before", "after", "stream"] = "before"
    norms_before: str | None = None
    parallel: bool | str = False
    shared_norm: bool = False
    written_inside: tuple[str, ...] = ()


PRE_NORM_BLOCK = Block()


@dataclasses.dataclass(frozen=True)
class Need:
    """The value of a configuration field that models have to have.

    Attributes:
        value: the value.
        reason: why a model with another cannot be hooked, and what can be done about it.
    """

    value: object
    reason: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class DropIn:
    """Where the drop-in ``HookedTransformer`` finds what TransformerLens has names for.

    Attributes:
        embed: HuggingFace's name of the token embedding, seen from the base model.
        qkv: the attention's projections into queries, keys and values, seen from a block: one for all, or one for each.
        output: its projection back.
        mlp_in, mlp_out: likewise the MLP's.
        mlp_gate: of a gated MLP, the projection whose activation multiplies the other's. None where ``mlp_in`` gives
            both, this one first.
        config: TransformerLens's configuration field to HuggingFace's; or to several, of which the first that is set
            counts.
        fixed: configuration fields that are the same in all models of the family.
        pos_embed: the embedding of positions, seen from the base model.
        first_position: its row for position 0.
        counts_positions: whether the model tells positions from the attention mask, and takes none in some releases.
        rotary: for rotary embeddings, what older configurations call the part of a head that is rotated, and the base;
            newer ones gather both in ``rope_parameters``.
        embedding_factor: the configuration field that the token embedding is multiplied by before the blocks, and its
            exponent.
        logit_factor: likewise the unembedding's output.
        output_factor: likewise what attention and MLP write to the residual stream.
        other_form: what models of the family have that TransformerLens has no names for.
        not_by_hand: what its attention does, beside what its parts say, that cannot be computed from weights alone.
        dataset: TransformerLens's name of a dataset like that which the family was trained on.
        prepend_bos: whether TransformerLens puts a BOS token before text.
        models: HuggingFace's names of models that TransformerLens calls by their last part.
        names: TransformerLens's other short names, in lower case, to HuggingFace's.
    """

    embed: str
    qkv: str | tuple[str, str, str]
    output: str
    mlp_in: str
    mlp_out: str
    config: Mapping[str, str | tuple[str, ...]]
    mlp_gate: str | None = None
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pos_embed: str | None = None
    first_position: int = 0
    counts_positions: bool = False
    rotary: tuple[str, str] | None = None
    embedding_factor: tuple[str, float] | None = None
    logit_factor: tuple[str, float] | None = None
    output_factor: tuple[str, float] | None = None
    other_form: str | None = None
    not_by_hand: str | None = None
    dataset: str = "pile"
    prepend_bos: bool = True
    models: tuple[str, ...] = ()
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
