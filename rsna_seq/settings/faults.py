"""Error messages for invalid config values, one line each."""

import reprlib

_RENAMED = {
    **{f"{section}.batch": "batch_size" for section in ("embed", "sequence")},
    **{f"{section}.drop": "dropout" for section in ("embed", "sequence")},
    **{f"{section}.ema": "ema_decay" for section in ("embed", "sequence")},
    **{f"{section}.clip": "max_grad_norm" for section in ("embed", "sequence")},
    **{"embed.flip": "flip_prob", "sequence.project": "projection_dim"},
    **{"stack.share": "blend_weight", "predict.clip": "prob_clip"},
}
"""Former names of keys, for the error message that gives the new name."""


def describe_fault(loc: tuple[str | int, ...], kind: str, message: str, found: object) -> str:
    """Describe one fault in one line: the key, what is wrong, and the value, shortened."""
    key = ".".join(str(part)[:80] for at, part in enumerate(loc) if at < 2 or isinstance(part, int))
    new = _RENAMED.get(".".join(map(str, loc)))
    if kind == "extra_forbidden" and new is not None:
        return f"  {key}: this key was renamed to {loc[0]}.{new}"
    if kind == "extra_forbidden":
        return f"  {key}: there is no such key (rsna-seq config prints all keys)"
    return f"  {key}: {message.removeprefix('Value error, ')} (found {reprlib.repr(found)})"
