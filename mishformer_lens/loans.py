"""What a live module was lent: a patched class, and what has to stay as it is for that to be right."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from mishformer_lens.engine.live_code import describe
from mishformer_lens.errors import ReplacedCodeError, UnsupportedModelError
from mishformer_lens.lent_classes import PLACE, LentClass, rebound, without

Links = tuple[tuple[Mapping[str, object], str, object], ...]
"""Where something stands: the table that has it, under which name, and what it is."""


@dataclasses.dataclass(frozen=True)
class Loan:
    """A class that was found for a module, and what has to stay as it is for that to be right.

    Attributes:
        module: the module.
        cls: its class without the lent one.
        lent: the class to lend it.
        links: where it stands: the tables that lead there from its parent, with name and module.
        proofs: the living code that the lent class stands in for: where it is, under which name, and what it is.
        size: how many attributes the module has: if others put a method of it on the module, it has more.
        has_methods: whether some have done so.
    """

    module: nn.Module
    cls: type
    lent: LentClass
    links: Links
    proofs: Links
    size: int
    has_methods: bool

    def is_in_place(self) -> bool:
        """Whether the module stands where it stood."""
        return not [name for table, name, module in self.links if table.get(name) is not module]

    def holds(self) -> bool:
        """Whether nothing changed that matters."""
        return (
            type(self.module) is self.cls
            and self.lent.is_untouched
            and "forward" not in vars(self.module)
            and PLACE not in vars(self.module)
            and self.is_in_place()
            and not [name for table, name, code in self.proofs if table.get(name) is not code]
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "Loan | None":
        """The loan of the copied module: what is known of where it stands is for the original alone."""
        module: nn.Module = copy.deepcopy(self.module, memo)
        return Loan(module, self.cls, self.lent, (), self.proofs, self.size, self.has_methods)


def shared_module(one: str, other: str) -> UnsupportedModelError:
    """What to raise where one module stands at the two paths."""
    return UnsupportedModelError(
        f"one module stands at {one} and at {other}, so a hook on one would fire for both. Put a copy in one of the "
        "two places: copy.deepcopy(module)."
    )


def refuse_forward_of_its_own(module: nn.Module, path: str, rebound: Mapping[str, object]) -> None:
    forward = vars(module).get("forward")
    # accelerate's forward calls what it keeps under another name.
    if forward is None or not {"forward", "_old_forward"}.isdisjoint(rebound):
        return
    raise ReplacedCodeError(
        f"the forward of {path or type(module).__name__} was replaced, on this one module, by {describe(forward)}: it "
        "need not run the code that hook points are in, so a hook might never fire. Take it off while hooks are on."
    )


def take_back(module: nn.Module, loan: Loan, attributes: Mapping[str, object]) -> None:
    values = vars(module)
    old = type(module)
    new = loan.cls if old is loan.lent.cls else without(old, loan.lent)
    object.__setattr__(module, "__class__", new)
    values.pop(PLACE, None)
    for name in attributes:
        values.pop(name, None)
    if len(values) != loan.size or loan.has_methods:
        values.update(rebound(module, old, new))
