"""Small tools of the field that stand beside the corridor."""
