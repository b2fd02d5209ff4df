"""Config section of the service: ``watch`` and ``serve``."""

from pydantic import Field

from rsna_seq.settings.types import Section


class ServiceConfig(Section):
    """``watch`` and ``serve``: when a study is complete, how often it is tried, and limits."""

    stable_s: float = Field(10.0, ge=0, le=86_400)
    """Seconds without a change after which a study is complete, for folders and C-STORE; Orthanc has a
    setting of its own (``StableAge``)."""
    poll_s: float = Field(2.0, gt=0, le=3600)
    """Seconds between two looks at the source."""
    tries: int = Field(3, ge=1, le=100)
    """Number of times that a study is scored if the process ends or the machine has a fault; after the last
    one the study has failed."""
    send_tries: int = Field(30, ge=1, le=100_000)
    """Number of times that the results of a study are sent; after the last one the study has failed."""
    retry_s: float = Field(5.0, ge=0, le=3600)
    """Seconds before the second try of either kind; each further one waits twice as long, at most 10
    minutes."""
    backlog: bool = True
    """Also answer studies that were in Orthanc before the first start."""
    late_s: float = Field(3600.0, ge=0, le=31_536_000)
    """Seconds for which instances that arrived by C-STORE are kept after the last one of their study, so that
    late ones are scored together with them."""
    keep_received: bool = False
    """Keep uploaded and retrieved instances after their study was answered."""
    max_waiting: int = Field(100, ge=1, le=1_000_000)
    """Number of studies that may wait to be scored; above it, ``serve`` replies 429, C-STORE is refused, and
    no further studies are retrieved."""
    max_upload_mb: int = Field(2048, ge=1, le=1_000_000)
    """Largest upload, and largest study within an upload or an archive, in MB (10^6 bytes)."""
    max_files: int = Field(10_000, ge=1, le=1_000_000)
    """Largest number of files of an upload or a study."""
    max_uploads: int = Field(8, ge=1, le=1000)
    """Number of uploads that ``serve`` receives at the same time; more get 429."""
    listed: int = Field(500, ge=1, le=100_000)
    """Number of studies on the worklist: the last ones."""
