"""The errors that a user may see, each with the exit code of the command line."""


class RsnaSeqError(Exception):
    """Base of all errors that a user can correct. The message says what happened, where, and what to do."""

    exit_code = 1


class UsageError(RsnaSeqError):
    """A wrong option, an unknown config key, or an input that is refused outright."""

    exit_code = 2


class QuarantinedError(RsnaSeqError):
    """Raised under ``--strict`` when the work is done, but some input was quarantined."""

    exit_code = 3


class NothingUsableError(RsnaSeqError):
    """No usable slice, label or study remains."""

    exit_code = 4


class EnvironmentFaultError(RsnaSeqError):
    """The environment lacks something: a codec, disk space, memory or pretrained weights."""

    exit_code = 5


class IntegrityError(RsnaSeqError):
    """An artefact is stale, locked by another run, or damaged."""

    exit_code = 6
