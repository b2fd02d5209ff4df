"""The boosters of one crossed fold and the gates of the classes: apply them, read and write their files."""

from dataclasses import dataclass, field
from pathlib import Path

import lightgbm as lgb
import numpy as np
import polars as pl

from rsna_seq.arrays import Floats
from rsna_seq.config import StackConfig
from rsna_seq.labels import CLASSES
from rsna_seq.stacking.features import class_features, stack_features
from rsna_seq.store.artifacts import Artifact
from rsna_seq.store.files import write_text


@dataclass(frozen=True)
class Stacker:
    """The boosters of one crossed fold, and the gates of the classes.

    Attributes:
        cfg: How the features are made.
        boosters: Boosters by class; a class without one keeps the sequence model's logit.
        gates: Whether the booster of a class is used.
        temperature: Divides the logits of all classes; 1 where calibration does not help.
        joint: Whether the logit of ``joint`` is averaged with that of the sequence model, by class; empty
            without that stage.
    """

    cfg: StackConfig
    boosters: dict[str, lgb.Booster]
    gates: dict[str, bool]
    temperature: float = 1.0
    joint: dict[str, bool] = field(default_factory=dict)

    @property
    def boosted(self) -> list[str]:
        """The classes in which a booster is used."""
        return [name for name in CLASSES if self.gates.get(name) and name in self.boosters]

    @property
    def uses_joint(self) -> bool:
        """Whether any result depends on the logits of ``joint``."""
        return any(self.joint.values()) or ("joint" in self.cfg.sources and bool(self.boosted))


def boost(stacker: Stacker, table: pl.DataFrame, base: Floats) -> Floats:
    """Average the boosters with other logits, in the classes whose gate is open.

    Args:
        stacker: Boosters and gates.
        table: As :func:`rsna_seq.stacking.features.join_logits` makes it, whole studies.
        base: (row, 6) logits.

    Returns:
        (row, 6) logits.
    """
    refined, used = base.copy(), stacker.boosted
    features = stack_features(table, stacker.cfg.neighbours, stacker.cfg.sources) if used else table
    for name in used:
        chosen = np.array(features.select(class_features(features.columns, name)).to_numpy(), order="C")
        boosted = stacker.boosters[name].predict(chosen, raw_score=True)
        c = CLASSES.index(name)
        refined[:, c] += stacker.cfg.blend_weight * (boosted - refined[:, c])
    return refined


def read_booster(stage: Artifact, fold: int, name: str) -> lgb.Booster | None:
    """The booster of a class in one crossed fold; None if the class had only one label."""
    file = f"boosters/{fold}_{name}.txt"
    if file not in stage.manifest.files:
        return None
    return lgb.Booster(model_str=stage.file(file).read_text(encoding="utf-8"))


def write_boosters(boosters: dict[str, lgb.Booster], folder: Path, fold: int) -> None:
    """Write the boosters of one crossed fold, one text file per class."""
    for name, booster in boosters.items():
        write_text(folder / f"{fold}_{name}.txt", booster.model_to_string())
