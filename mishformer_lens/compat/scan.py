"""Which variant serves which release, read from the sources."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Protocol

from mishformer_lens.compat.patches import Patches
from mishformer_lens.errors import ArchiveError, SourceFileMissingError
from mishformer_lens.patchers import Family
from mishformer_lens.patchers.releases import has_begun, why_not_begun
from mishformer_lens.patchers.resolver import is_known, judge

Reader = Callable[[str, str], str]
"""Gives the text of a file: of which release, at which path in the wheel."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """One edit that does not fit.

    Attributes:
        member: the class or function that it is for.
        message: what was looked for, how often it was found, and what stands there instead.
    """

    member: str
    message: str


@dataclasses.dataclass(frozen=True)
class Row:
    """What the source of one family in one release says.

    Attributes:
        status: ``verified``, the source is one that was verified; ``applies``, every anchor matches, but nobody
            verified this source; ``fails``, some anchor is missing; ``absent``, the release comes before the first that
            the family has a variant for, and may lack it altogether.
        variant: the variant to use; where it fails, the one that fits best. Empty where there is none.
        failures: what is missing.
        reason: why it is absent.
    """

    release: str
    family: str
    variant: str
    status: Literal["verified", "applies", "fails", "absent"]
    failures: tuple[Failure, ...] = ()
    reason: str = ""


class Target(Protocol):
    """What a release is scanned for."""

    @property
    def path(self) -> str:
        """The path of the source in a wheel."""

    def row(self, release: str, source: str) -> Row:
        """The verdict on one source."""

    def missing(self, release: str, reason: str) -> Row:
        """The verdict on a release that has no such source."""


@dataclasses.dataclass(frozen=True)
class FamilyTarget:
    """A family of this library, with all its variants."""

    family: Family

    @property
    def path(self) -> str:
        return self.family.source_path

    def row(self, release: str, source: str) -> Row:
        if not has_begun(self.family, release) and not is_known(self.family, source):
            return self._absent(release)
        verdict = judge(self.family, source, release)
        failures = tuple(Failure(member, message) for member, message in verdict.failures)
        return Row(release, self.family.name, verdict.variant.name, verdict.status, failures)

    def missing(self, release: str, reason: str) -> Row:
        if not has_begun(self.family, release):
            return self._absent(release)
        return Row(release, self.family.name, "", "fails", (Failure("", reason),))

    def _absent(self, release: str) -> Row:
        return Row(release, self.family.name, "", "absent", reason=why_not_begun(self.family, release))


class PatchesTarget:
    """A person's own patches. Nothing verified them, so at best they apply."""

    def __init__(self, patches: Patches) -> None:
        self._patches = patches
        self._known: dict[str, tuple[Failure, ...]] = {}

    @property
    def path(self) -> str:
        return self._patches.source_path

    def row(self, release: str, source: str) -> Row:
        digest = hashlib.sha256(source.encode()).hexdigest()
        if digest not in self._known:
            found = self._patches.failures(source)
            self._known[digest] = tuple(Failure(member, message) for member, message in found)
        return self._row(release, self._known[digest])

    def missing(self, release: str, reason: str) -> Row:
        return self._row(release, (Failure("", reason),))

    def _row(self, release: str, failures: tuple[Failure, ...]) -> Row:
        family = self._patches.module.rpartition(".")[2].removeprefix("modeling_")
        return Row(release, family, self._patches.name, "fails" if failures else "applies", failures)


def scan(targets: Iterable[Target], releases: Iterable[str], read: Reader) -> Iterator[Row]:
    """One row per release and target, in the order of the releases.

    Raises:
        ArchiveError: a source is not Python.
        SourceError: see :meth:`mishformer_lens.compat.sources.Registry.read`. A file that a release lacks is no error,
            but a row.
    """
    targets = list(targets)
    for release in releases:
        for target in targets:
            try:
                source = read(release, target.path)
            except SourceFileMissingError as error:
                yield target.missing(release, str(error))
                continue
            try:
                yield target.row(release, source)
            except SyntaxError as error:
                raise ArchiveError(
                    f"{target.path} of transformers {release} is not Python (line {error.lineno}: {error.msg}): the "
                    "copy is damaged. Get the release again from a package index."
                ) from error
