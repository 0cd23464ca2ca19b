import pytest

from usp_mm.files import locked, read_json, write_json


def test_json_objects(tmp_path):
    file = tmp_path / 'facts.json'
    assert read_json(file) is None
    write_json(file, dict(a=[1, None]))
    assert read_json(file) == dict(a=[1, None])
    file.write_text('{"a": ')
    with pytest.raises(ValueError, match=r"facts\.json' is no JSON file \(.*\): delete it"):
        read_json(file)
    file.write_text('[1]')
    with pytest.raises(ValueError, match=r"facts\.json' holds a list, expected values by name: delete it"):
        read_json(file)


def fail_while_locked(path):
    with locked(path, 'taken'):
        raise KeyError(path.is_file())


def test_a_lock_is_gone_after_an_error(tmp_path):
    with pytest.raises(KeyError, match='True'):
        fail_while_locked(tmp_path / 'x.lock')
    assert list(tmp_path.iterdir()) == []
