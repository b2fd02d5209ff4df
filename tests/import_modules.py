"""Modules of importers and study-level labels without a test file of their own, and where they are tested."""

IMPORTS = {
    "datasets.answers": "tests/datasets/test_folder.py and tests/datasets/test_cq500.py",
    "datasets.files": "tests/datasets/test_cq500.py",
    "datasets.importers": "tests/tools/test_import_set.py",
    "imaging.headers.chunks": "through every scan: tests/stages/test_index.py",
    "imaging.jpeg_windows": "tests/datasets/test_physionet.py",
    "imaging.other_formats": "tests/imaging/test_nifti.py and tests/datasets/test_physionet.py",
    "imaging.whole_file": "tests/imaging/test_nifti.py",
    "nets.embed_jobs": "tests/stages/test_weak_labels.py and tests/stages/test_learned.py",
    "settings.imports": "tests/datasets/test_folder.py and tests/datasets/test_cq500.py",
}
