import inspect
import subprocess
import sys

import pytest

import chibit


@pytest.mark.parametrize("name", chibit.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(chibit, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__doc__
        assert value.__name__ == name


def test_the_list_is_the_map():
    assert set(chibit.__all__) == set(chibit._HOME)
    assert dir(chibit) == sorted(chibit.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        _ = chibit.absent


def test_importing_chibit_is_quick_and_imports_no_torch():
    subprocess.run(
        [sys.executable, "-c", "import sys, chibit; assert 'torch' not in sys.modules"], check=True
    )
