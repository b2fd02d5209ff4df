"""Modules of the service without a test file of their own, and where they are tested."""

_TESTS = {
    "tests/service/test_orthanc_source.py": ("orthanc", "send"),
    "tests/service/test_watch.py": ("commands", "folder_source", "scorer", "source", "view", "worker"),
    "tests/service/test_queue.py": ("jobs", "queue_tables"),
    "tests/service/test_api.py": ("guard", "metrics", "uploads"),
}
SERVICE = {f"service.{name}": file for file, names in _TESTS.items() for name in names}
