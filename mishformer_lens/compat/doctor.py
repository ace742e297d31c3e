"""What is installed here, and what this library can do with it. Nothing of it is imported."""

import dataclasses
import importlib.metadata
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

import mishformer_lens
from mishformer_lens.errors import FamilyNotInReleaseError, ResolutionError, TransformersNotInstalledError
from mishformer_lens.patchers import FAMILIES, Family
from mishformer_lens.patchers.installed import (
    find_package,
    installed_release,
    installed_source,
    version_in_metadata,
)
from mishformer_lens.patchers.releases import has_begun, is_version, why_not_begun
from mishformer_lens.patchers.resolver import is_known, judge_readable

PACKAGES = ("mishformer-lens", "torch", "transformers", "transformer-lens")


@dataclasses.dataclass(frozen=True)
class FamilyReport:
    """What can be hooked of one family.

    Attributes:
        variant: the selected variant; None where there is none.
        status: ``verified`` by fingerprint, ``applies`` though nobody verified this source, ``fails``, ``unusable``
            where there is no source to judge, or ``absent`` where the installed release is older than the first that
            the family can be hooked in.
        reason: why it is not verified; else the releases that share the source shape.
        attention: the attention implementations that can be hooked.
        unsupported: what cannot be had, with the reason.
    """

    family: str
    variant: str | None
    status: Literal["verified", "applies", "fails", "unusable", "absent"]
    reason: str
    attention: tuple[str, ...] = ()
    unsupported: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A combination that does not work, and the command that mends it."""

    found: str
    command: str


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that ``doctor`` says.

    Attributes:
        packages: package to its version; None where it is not installed.
        cuda: the CUDA that torch is built for, and whether a driver is there.
    """

    python: str
    packages: dict[str, str | None]
    cuda: str
    families: tuple[FamilyReport, ...]
    problems: tuple[Problem, ...]


@dataclasses.dataclass(frozen=True)
class KnownBad:
    """Releases of one package that do not work, alone or beside certain releases of another."""

    package: str
    releases: str
    reason: str
    command: str
    beside: str = ""
    beside_releases: str = ""

    def applies(self, versions: dict[str, str | None]) -> bool:
        """Whether these releases are installed."""
        wanted = [(self.package, self.releases)]
        if self.beside:
            wanted.append((self.beside, self.beside_releases))
        return all(_is_in(versions.get(package), releases) for package, releases in wanted)


KNOWN_BAD = (
    KnownBad(
        "transformer-lens",
        ">=2.16,<2.19",
        "it pins numpy or pandas so that a fresh environment cannot import it (pyarrow requires NumPy 2.0)",
        'pip install "transformer-lens>=2.15.4,!=2.16.*,!=2.17.*,!=2.18.*"',
    ),
    KnownBad(
        "transformer-lens",
        "<3",
        "2.15.4, the last of its line, fails to import beside transformers 5",
        'pip install "transformer-lens>=3.2.1"',
        beside="transformers",
        beside_releases=">=5",
    ),
)


def examine() -> Report:
    """Look at what is installed, from metadata and files alone."""
    # The versions of this library and of transformers are asked of themselves: both also run from checkouts that are
    # not installed, and metadata may be another installation's.
    versions = {package: version_in_metadata(package) for package in PACKAGES} | {
        "mishformer-lens": mishformer_lens.__version__,
        "transformers": _release(),
    }
    return Report(
        python=platform.python_version(),
        packages=versions,
        cuda=_cuda(),
        families=tuple(_family_report(family) for family in FAMILIES.values()),
        problems=tuple(_problems(versions)),
    )


def _family_report(family: Family) -> FamilyReport:
    release = _release()
    try:
        source = installed_source(family).text
        if release is not None and not has_begun(family, release) and not is_known(family, source):
            return FamilyReport(family.name, None, "absent", why_not_begun(family, release))
        verdict = judge_readable(family, source, installed_release())
    except FamilyNotInReleaseError as error:
        begun = release is None or has_begun(family, release)
        return FamilyReport(family.name, None, "unusable" if begun else "absent", str(error))
    except ResolutionError as error:
        return FamilyReport(family.name, None, "unusable", str(error))
    variant = verdict.variant
    match verdict.status:
        case "verified":
            first, last = verdict.verified_releases[0], verdict.verified_releases[-1]
            reason = f"same source shape as {first}" + (f" to {last}" if last != first else "")
        case "applies":
            changed = ", ".join(verdict.changed_members)
            reason = (
                f"every anchor matches, but {changed} changed since {verdict.nearest_release}: nobody verified this"
            )
        case "fails":
            missing = len(verdict.failures)
            reason = f"{missing} anchor(s) are missing: mishformer-lens compat scan --source installed"
    return FamilyReport(family.name, variant.name, verdict.status, reason, variant.attention, dict(variant.unsupported))


def _problems(versions: dict[str, str | None]) -> Iterator[Problem]:
    for bad in KNOWN_BAD:
        if bad.applies(versions):
            beside = f" beside {bad.beside} {versions[bad.beside]}" if bad.beside else ""
            yield Problem(f"{bad.package} {versions[bad.package]}{beside}: {bad.reason}", bad.command)
    yield from _odd_numbers(versions)
    yield from _unmet(versions)


def _odd_numbers(versions: dict[str, str | None]) -> Iterator[Problem]:
    """Versions that cannot be read, or are not those of the package; what is verified is the source all the same."""
    for package, version in versions.items():
        if version is not None and not is_version(version):
            yield Problem(
                f"the version of {package} is {version}, which packaging tools cannot read",
                f"pip install --force-reinstall --no-deps {package}",
            )
    own, in_metadata = versions["transformers"], version_in_metadata("transformers")
    if own is not None and in_metadata != own:
        said = "there is no metadata of it" if in_metadata is None else f"its metadata says {in_metadata}"
        pinned = f"=={own}" if is_version(own) else ""
        yield Problem(
            f"transformers says that it is {own}, and {said}: something of another installation, or half of one",
            f"pip install --force-reinstall --no-deps transformers{pinned}",
        )


def _unmet(versions: dict[str, str | None]) -> Iterator[Problem]:
    """What this library and TransformerLens ask for, and what stands there instead."""
    for package in ("mishformer-lens", "transformer-lens"):
        for line in _requirements(package):
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue  # not ours to judge: pip itself would not read it
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            found = versions.get(requirement.name) if requirement.name in PACKAGES else None
            if found is not None and not is_version(found):
                continue  # a problem of its own
            if requirement.name in PACKAGES and not _is_in(found, str(requirement.specifier)):
                yield Problem(
                    f"{package} {versions[package]} needs {requirement.name} {requirement.specifier}, and "
                    f"{found or 'none'} is installed",
                    f'pip install --upgrade {package} "{requirement.name}{requirement.specifier}"',
                )


def _requirements(package: str) -> list[str]:
    try:
        return importlib.metadata.requires(package) or []
    except (importlib.metadata.PackageNotFoundError, ValueError, OSError):
        return []  # without metadata, or with damaged ones, it asks for nothing


def _is_in(version: str | None, specifiers: str) -> bool:
    if version is None or not is_version(version):
        return False
    return SpecifierSet(specifiers).contains(version, prereleases=True)


def _release() -> str | None:
    try:
        return installed_release()
    except TransformersNotInstalledError:
        return None


_CUDA = re.compile(r"^cuda\b[^=]*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)


def _cuda() -> str:
    """The CUDA that torch was built for, as its own file of versions says, and whether there is a driver."""
    spec = find_package("torch")
    folder = next(iter((spec and spec.submodule_search_locations) or ()), None)
    file = Path(folder or "", "version.py")
    if folder is None or not file.is_file():
        return "torch is not installed"
    built = _CUDA.search(file.read_text(encoding="utf-8", errors="replace"))
    if built is None:
        return "torch is built for the CPU only"
    driver = "a driver is here" if shutil.which("nvidia-smi") else "no driver is here (nvidia-smi is missing)"
    return f"torch is built for CUDA {built.group(1)}; {driver}"
