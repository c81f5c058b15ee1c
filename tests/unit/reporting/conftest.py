import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def runs():
    """The writer of synthetic run directories (`synthetic_runs.py`)."""
    path = Path(__file__).with_name("synthetic_runs.py")
    spec = importlib.util.spec_from_file_location("synthetic_runs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
