"""Numbers of the service in the text format of Prometheus."""

from collections.abc import Iterable, Mapping

_HEAD = "rsna_seq_"


def metrics_text(
    counts: Mapping[str, int], *, unsent: int, uploading: int, working: bool, seconds: float, scored: int
) -> str:
    """Write the numbers.

    Args:
        counts: Number of studies in each state.
        unsent: Number of studies whose results are to be sent.
        uploading: Number of uploads in progress.
        working: Whether this process scores studies.
        seconds: Time that this process has spent on scoring.
        scored: Number of studies that this process has scored or that have failed in it.

    Returns:
        Text of version 0.0.4 of the format.
    """
    states = [(f'{{state="{state}"}}', number) for state, number in counts.items()]
    parts = [
        *_metric("studies", "gauge", "Studies in the queue, by state.", states),
        *_metric("unsent_studies", "gauge", "Studies whose results are to be sent.", [("", unsent)]),
        *_metric("uploads_in_progress", "gauge", "Uploads in progress.", [("", uploading)]),
        *_metric("worker_up", "gauge", "Whether this process scores studies.", [("", int(working))]),
        *_metric("scored_studies_total", "counter", "Studies that this process has scored.", [("", scored)]),
        *_metric("scoring_seconds_total", "counter", "Time spent on scoring.", [("", round(seconds, 3))]),
    ]
    return "\n".join(parts) + "\n"


def _metric(name: str, kind: str, words: str, values: Iterable[tuple[str, float]]) -> list[str]:
    whole = _HEAD + name
    return [f"# HELP {whole} {words}", f"# TYPE {whole} {kind}", *(f"{whole}{at} {v}" for at, v in values)]
