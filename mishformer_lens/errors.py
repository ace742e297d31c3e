"""Every error that this library raises on purpose.

Each message says what was found, what was needed and what to do next. Catch :class:`MishformerLensError` to catch
them all. Those that the drop-in raises where TransformerLens's ``HookedTransformer`` raises an ``AssertionError``,
``KeyError``, ``ValueError`` or ``IndexError`` are that as well, so that a program written for it catches them.
"""


class MishformerLensError(Exception):
    """The root of all errors of this library."""


class PatchError(MishformerLensError):
    """An edit does not fit the source that it was applied to."""


class InvalidAnchorError(PatchError):
    """An anchor or a replacement is not complete Python, or is empty."""


class MemberNotFoundError(PatchError):
    """The class, method or function that an edit names is not in the source."""


class AnchorMatchError(PatchError):
    """An anchor was found fewer or more times than its edit declares."""


class SpliceError(PatchError):
    """A replacement cannot stand where its anchor was found, because of what shares the line with it."""


class UnsupportedEditError(PatchError):
    """An edit changes something that cannot be changed on objects that exist already."""


class ResolutionError(MishformerLensError):
    """No variant can be used with the installed release of transformers."""


class TransformersNotInstalledError(ResolutionError):
    """transformers is not installed."""


class TransformerLensNotInstalledError(MishformerLensError, ImportError):
    """The drop-in is asked for, and TransformerLens is not installed."""


class TransformerLensUnusableError(MishformerLensError, ImportError):
    """The drop-in is asked for, and the installed TransformerLens cannot be imported."""


class FamilyNotInReleaseError(ResolutionError):
    """The installed release of transformers does not have the family."""


class SourceUnreadableError(ResolutionError):
    """The source of a family's module is not there, or is damaged; what gets patched is the source."""


class SourceChangedError(ResolutionError):
    """The source of a family's module changed after it was imported, so it does not say what runs."""


class ReleaseTooOldError(ResolutionError):
    """The installed release of transformers is older than every variant of the family."""


class UnverifiedSourceError(ResolutionError):
    """Every anchor matches, but this source was never verified."""


class AnchorsMissingError(ResolutionError):
    """The installed source lacks anchors of every variant that could serve it."""


class ModifiedSourceError(ResolutionError):
    """The source of a verified release was changed on this machine."""


class UnsupportedModelError(MishformerLensError, ValueError):
    """The model is of no family that this library has variants for."""


class NotInstrumentedError(MishformerLensError):
    """The model carries no hook points, or they were removed already."""


class ReplacedCodeError(UnsupportedModelError):
    """Other code replaced the code that hook points would be in, so that a hook might never fire."""


class UnverifiedSourceWarning(UserWarning):
    """A person chose to go on with a source that was never verified."""


class UnsupportedReleaseWarning(UserWarning):
    """The installed release of transformers has no variant; using one will raise."""


class EagerFallbackWarning(UserWarning):
    """A hook needs attention scores, so a fused attention kernel was left for the eager computation."""


class CheckpointingWarning(UserWarning):
    """Gradient checkpointing is off for the blocks whose hook points have hooks."""


class HooksLeftBehindWarning(UserWarning):
    """Hook points are pickled while hooks or observers are on them, which stay here."""


class HookError(MishformerLensError):
    """A hook cannot be attached, or did something that it must not."""


class UnknownHookError(HookError, KeyError):
    """No hook point has that name."""

    def __str__(self) -> str:
        # KeyError's own shows the message's repr: in quotes, with \n for a new line.
        return Exception.__str__(self)


class UnknownHookAttributeError(UnknownHookError, AttributeError):
    """A part of the drop-in was asked, as an attribute, for a hook point that it does not have."""


class HookShapeError(HookError):
    """A hook returned something that cannot replace the activation it was given."""


class TracedCacheError(HookError):
    """A model is traced into a program while its activations are cached."""


class TracedHookError(HookError):
    """A hook may edit an activation that is none yet: the model is traced symbolically."""


class HeadResultsError(HookError):
    """What each head adds cannot be taken from the output projection, or the heads' inputs cannot be projected."""


class AttentionKernelError(HookError):
    """A hook needs attention scores, and what the model's attention kernel computes is not known."""


class CheckpointNotFoundError(MishformerLensError, AssertionError, ValueError):
    """There is no checkpoint at the given place."""


class TokenizerError(MishformerLensError, AssertionError, ValueError):
    """Text was given, but there is no tokenizer for it, or tokens are of a wrong form or out of its range."""


class SourceError(MishformerLensError):
    """The source of a release of transformers cannot be read."""


class ReleaseNotFoundError(SourceError):
    """There is no such release, or it was withdrawn."""


class RegistryError(SourceError):
    """The package index cannot be reached, or answers with something else than an index."""


class ArchiveError(SourceError):
    """A wheel is damaged, or what it holds must not be unpacked."""


class SourceFileMissingError(SourceError):
    """A wheel, a folder or a release has no such file."""


class CacheError(SourceError):
    """The folder that keeps sources cannot be written."""


class PatchFileError(MishformerLensError):
    """A file of a person's own patches cannot be read as such."""


class OutcomeError(MishformerLensError):
    """A recorded outcome is damaged, of another schema, or was edited by hand."""


class StaleTableError(MishformerLensError):
    """A committed table is not what the recorded outcomes say."""


class MissingDependencyError(MishformerLensError):
    """Something optional is asked for, and the package that it needs is not installed."""


class ForwardArgumentsError(MishformerLensError, AssertionError, ValueError):
    """The arguments of a forward pass do not go together, or make no sense for the model."""


class KeyValueCacheError(MishformerLensError, AssertionError, TypeError):
    """What was given as a key-value cache is none."""


class ProcessingError(MishformerLensError, AssertionError, ValueError):
    """The weights cannot be processed, or brought back, in this way."""


class TokensOutOfRangeError(TokenizerError, IndexError):
    """Tokens are given that the model has no embedding of."""


class NotAHookPointError(UnknownHookError, AssertionError):
    """The name is that of a part of the model, and no hook point's."""


class NamesFilterError(UnknownHookError, AssertionError, ValueError):
    """What was given to choose hook points is no name, list of names or function."""


class UnknownArgumentError(ForwardArgumentsError, TypeError):
    """There is no argument of that name."""


class UnreadableWeightError(MishformerLensError):
    """A weight is quantized, offloaded or held by a wrapper, so that its numbers cannot be looked at in place."""
