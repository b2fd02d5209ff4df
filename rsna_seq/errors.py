"""The errors that a user may meet, each with the exit code of the command line."""


class RsnaSeqError(Exception):
    """Base of all errors that are a user's to mend. The message says what, where, and the remedy."""

    exit_code = 1


class UsageError(RsnaSeqError):
    """A wrong option, an unknown config key, or an input that is refused outright."""

    exit_code = 2


class QuarantinedError(RsnaSeqError):
    """Raised under ``--strict`` when the work is done, but some input had to be set aside."""

    exit_code = 3


class NothingUsableError(RsnaSeqError):
    """No slice, no label or no study was left to work on."""

    exit_code = 4


class EnvironmentFaultError(RsnaSeqError):
    """The machine lacks something: a codec, disk space, pretrained weights."""

    exit_code = 5


class IntegrityError(RsnaSeqError):
    """An artefact is stale, locked by another run, or damaged."""

    exit_code = 6
