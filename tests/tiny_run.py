"""Overrides with which a whole run takes seconds."""

TINY = [
    *("device=cpu", "workers=1", "cache.size=32", "index.folds=2", "index.cross_folds=2", "index.holdout=0"),
    *("embed.backbone=resnet10t", "embed.pretrained=false", "embed.epochs=1", "embed.batch_size=8"),
    *("sequence.epochs=1", "sequence.batch_size=4", "sequence.projection_dim=16", "sequence.hidden=8"),
    *("stack.rounds=5", "stack.min_leaf=2", "evaluate.bootstrap=20"),
]
WITH_JOINT = [*TINY, "joint.enabled=true", "joint.epochs=1", "joint.projection_dim=8", "joint.hidden=8"]
"""The same with the optional stage."""
