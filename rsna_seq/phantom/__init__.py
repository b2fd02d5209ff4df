"""Synthetic head CT studies: images are rendered from a patient, an acquisition and bleeds."""

from rsna_seq.phantom.bleeds import KINDS, Bleed, draw_bleed
from rsna_seq.phantom.patient import Patient, draw_patient
from rsna_seq.phantom.render import Study, render_study
from rsna_seq.phantom.scanner import Scan, draw_scan
from rsna_seq.phantom.variation import vary

__all__ = [
    "KINDS",
    "Bleed",
    "Patient",
    "Scan",
    "Study",
    "draw_bleed",
    "draw_patient",
    "draw_scan",
    "render_study",
    "vary",
]
