"""From an installed release of transformers to the variant that is proven for its source."""

import dataclasses
import functools
import importlib
import os
import threading
import types
import warnings
from collections.abc import Mapping
from typing import Literal

from mishformer_lens.engine import (
    changed_since_import,
    compiled_code,
    failing_edits,
    member_fingerprints,
    source_fingerprint,
)
from mishformer_lens.errors import (
    AnchorsMissingError,
    ModifiedSourceError,
    ReleaseTooOldError,
    SourceChangedError,
    SourceUnreadableError,
    UnverifiedSourceError,
    UnverifiedSourceWarning,
)
from mishformer_lens.patchers.family import Family, Variant
from mishformer_lens.patchers.fingerprints import file_hash, variant_of_release, verified_of
from mishformer_lens.patchers.installed import Source, installed_release, installed_source, source_of
from mishformer_lens.patchers.releases import has_begun, nearest_first, nearest_release, why_not_begun

ALLOW_UNVERIFIED_VARIABLE = "MISHFORMER_LENS_ALLOW_UNVERIFIED"
"""Set to ``1``, this environment variable does what ``allow_unverified=True`` does."""

Status = Literal["verified", "applies", "fails"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What can be said of one source of one family.

    Attributes:
        release: the version number that the source came with.
        status: ``verified``, its fingerprint is that of a verified release; ``applies``, every anchor of ``variant``
            matches, but this source was never verified; ``fails``, some anchor is missing.
        variant: the variant to use; where it fails, the one that fits best.
        fingerprint: that of the members which ``variant`` touches.
        verified_releases: the releases that share this fingerprint.
        nearest_release: the verified release closest to ``release``.
        changed_members: members whose shape differs from that in ``nearest_release``.
        failures: for ``fails``: member and message of each edit that does not fit.
    """

    family: str
    release: str
    status: Status
    variant: Variant
    fingerprint: str
    verified_releases: tuple[str, ...] = ()
    nearest_release: str = ""
    changed_members: tuple[str, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()


def is_known(family: Family, source: str) -> bool:
    """Whether this very file is one of those that were verified, so that judging it needs no parsing."""
    return file_hash(source) in verified_of(family.name)["files"]


def judge(family: Family, source: str, release: str) -> Verdict:
    """Say which variant serves ``source``, and how well that is proven; where nothing fits, that is the verdict.

    Args:
        release: the number that it came with. It decides nothing about a verified source, and may be odd.

    Raises:
        SyntaxError, ValueError: ``source`` is not Python.
    """
    table = verified_of(family.name)
    known = table["files"].get(file_hash(source))
    if known is not None:
        return _verified(family, release, *known)
    members = member_fingerprints(source, _all_members(family))
    for variant in family.variants:
        fingerprint = source_fingerprint({name: members[name] for name in variant.members})
        if fingerprint in table["shapes"].get(variant.name, {}):
            return _verified(family, release, variant.name, fingerprint)
    return _judge_unseen(family, source, release, members)


def _all_members(family: Family) -> set[str]:
    return {name for variant in family.variants for name in variant.members}


def _verified(family: Family, release: str, variant: str, fingerprint: str) -> Verdict:
    shape = verified_of(family.name)["shapes"][variant][fingerprint]
    return Verdict(
        family.name,
        release,
        "verified",
        family.variant(variant),
        fingerprint,
        verified_releases=tuple(shape["releases"]),
    )


def _judge_unseen(family: Family, source: str, release: str, members: Mapping[str, str]) -> Verdict:
    verdicts = []
    for variant in nearest_first(family, release):
        failures = tuple((member, str(error)) for member, _, error in failing_edits(source, variant.edits))
        nearest, known = nearest_release(family, variant, release)
        touched = {name: members[name] for name in variant.members}
        verdict = Verdict(
            family.name,
            release,
            "fails" if failures else "applies",
            variant,
            source_fingerprint(touched),
            nearest_release=nearest,
            changed_members=tuple(name for name, value in touched.items() if known.get(name) != value),
            failures=failures,
        )
        if not failures:
            return verdict
        verdicts.append(verdict)
    return min(verdicts, key=lambda verdict: len(verdict.failures))


def judge_readable(family: Family, source: str, release: str) -> Verdict:
    """As :func:`judge`, for a source that may be damaged.

    Raises:
        SourceUnreadableError: ``source`` is not Python, or not this Python's.
    """
    try:
        return judge(family, source, release)
    except (SyntaxError, ValueError) as error:
        raise _not_python(f"the {family.name} source of transformers {release}", error) from error


def require(family: Family, source: str, release: str, allow_unverified: bool | None = None) -> Verdict:
    """The verdict for ``source``, if its variant may be used.

    Args:
        allow_unverified: go on, with a warning, where every anchor matches but the source was never verified. None:
            what the environment variable ``MISHFORMER_LENS_ALLOW_UNVERIFIED`` says.

    Raises:
        SourceUnreadableError: ``source`` is not Python.
        ReleaseTooOldError: the source is not verified, and ``release`` comes before the family's first variant.
        AnchorsMissingError: no variant fits.
        ModifiedSourceError: ``release`` was verified with another source than this, and going on is not allowed.
        UnverifiedSourceError: the source was never verified, and going on is not allowed.
    """
    verdict = judge_readable(family, source, release)
    if verdict.status == "verified":
        return verdict
    if not has_begun(family, release):
        raise ReleaseTooOldError(why_not_begun(family, release))
    if verdict.status == "fails":
        raise _anchors_missing(verdict)
    if verdict.status == "applies":
        if not _is_allowed(allow_unverified):
            raise _unverified(family, verdict)
        warnings.warn(
            f"the {family.name} source of transformers {release} was never verified: variant {verdict.variant.name} "
            "fits it, but what its hooks mean there is unproven.",
            UnverifiedSourceWarning,
            stacklevel=3,
        )
    return verdict


def _is_allowed(allow_unverified: bool | None) -> bool:
    return os.environ.get(ALLOW_UNVERIFIED_VARIABLE) == "1" if allow_unverified is None else allow_unverified


def _anchors_missing(verdict: Verdict) -> AnchorsMissingError:
    failures = "\n".join(f"- {message}" for _, message in verdict.failures)
    return AnchorsMissingError(
        f"no variant fits the {verdict.family} source of transformers {verdict.release}. The closest, "
        f"{verdict.variant.name}, lacks {len(verdict.failures)} anchor(s):\n{failures}\n"
        "Use a release that the compatibility table lists, or write a variant for this one (see CONTRIBUTING.md)."
    )


def _unverified(family: Family, verdict: Verdict) -> UnverifiedSourceError | ModifiedSourceError:
    changed = ", ".join(verdict.changed_members)
    if variant_of_release(family.name, verdict.release) is not None:
        return ModifiedSourceError(
            f"the {family.name} source of the installed transformers {verdict.release} is not the one of that "
            f"release: {changed} differ(s) from {verdict.nearest_release}. Reinstall it (pip install --force-reinstall "
            f"--no-deps transformers=={verdict.release}), or pass allow_unverified=True (or set "
            f"{ALLOW_UNVERIFIED_VARIABLE}=1) to hook the modified code."
        )
    return UnverifiedSourceError(
        f"the {family.name} source of transformers {verdict.release} was never verified. Every anchor of variant "
        f"{verdict.variant.name} matches, but {changed} changed since {verdict.nearest_release}, the nearest verified "
        "release, so a hook may not mean what it says. Use a verified release, or pass allow_unverified=True (or set "
        f"{ALLOW_UNVERIFIED_VARIABLE}=1) to go on."
    )


_lock = threading.Lock()
_resolved: dict[tuple[str, str, str, bool], Verdict] = {}


def resolve(family: Family, source: Source | None = None, allow_unverified: bool | None = None) -> Verdict:
    """The verdict on the installed source of ``family``, once per process and text.

    Args:
        source: what to judge; the installed one, if not given.
        allow_unverified: see :func:`require`.

    Raises:
        ResolutionError: see :func:`require`; also where transformers is not installed, or its source not readable.
    """
    source = source or installed_source(family)
    allowed = _is_allowed(allow_unverified)
    release = installed_release()
    key = (family.name, file_hash(source.text), release, allowed)
    with _lock:
        if key not in _resolved:
            _resolved[key] = require(family, source.text, release, allowed)
        return _resolved[key]


def modeling_module(family: Family) -> types.ModuleType:
    """The module of transformers that has the family's models, imported.

    Raises:
        FamilyNotInReleaseError: the installed release does not have the family.
    """
    try:
        return importlib.import_module(family.module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not family.module_name.startswith(error.name):
            raise
        installed_source(family)
        raise


def resolve_imported(
    family: Family, module: types.ModuleType, allow_unverified: bool | None = None
) -> tuple[Verdict, Source]:
    """The verdict on the source of an imported module, and that source; what it says is what was imported.

    Raises:
        SourceUnreadableError: the source is not there any more, or never was, or is damaged.
        SourceChangedError: it is not what was imported.
        ResolutionError: see :func:`require`.
    """
    source = source_of(module)
    changed = changed_since_import(module, code_of(source), _all_members(family))
    if changed:
        raise SourceChangedError(
            f"{source.path} does not hold the code of {module.__name__} that this process imported: "
            f"{', '.join(changed)} differ(s). transformers was installed anew or edited since, or something rewrites "
            "its code as it is imported. Restart Python, or the notebook's kernel, so that what is installed runs."
        )
    return resolve(family, source, allow_unverified), source


@functools.lru_cache(maxsize=8)
def code_of(source: Source) -> Mapping[str, tuple[types.CodeType, ...]]:
    """What the functions of ``source`` compile to, once per process; see :func:`mishformer_lens.engine.compiled_code`.

    Raises:
        SourceUnreadableError: it is not Python.
    """
    try:
        return compiled_code(source.text, source.path)
    except (SyntaxError, ValueError) as error:
        raise _not_python(source.path, error) from error


def _not_python(what: str, error: Exception) -> SourceUnreadableError:
    return SourceUnreadableError(
        f"{what} is not Python ({error}): it is damaged, or for a newer Python than this one. Reinstall it: "
        "pip install --force-reinstall --no-deps transformers"
    )
