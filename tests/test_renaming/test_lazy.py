"""Names of packages that are imported when they are used."""

import importlib
import pkgutil

import pytest


@pytest.mark.parametrize('name', ['usp_mm.apis', 'usp_mm.checkpoints'])
def test_every_public_name_is_there_and_no_module_has_it(name):
    package = importlib.import_module(name)
    for public in package.__all__:
        found = getattr(package, public)
        assert vars(package)[public] is found and type(found).__name__ != 'module'
    assert not set(package.__all__) & {module.name for module in pkgutil.iter_modules(package.__path__)}
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'absent'"):
        _ = package.absent
