"""Intracranial haemorrhage on head CT, read slice by slice with the whole study in view."""
