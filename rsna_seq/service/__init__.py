"""``watch`` and ``serve``: studies that arrive one after another, and a model that stays loaded."""
