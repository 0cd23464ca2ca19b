"""Two lists of class names."""

import pytest
from mmengine.logging import MMLogger
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from timm.data import ImageNetInfo
from torch.utils.data import Subset

from usp_mm.datasets import SampleRequests
from usp_mm.datasets.class_names import check_classes, check_renaming, class_difference, class_name, class_names


@pytest.mark.parametrize(
    ('expected', 'found', 'told'),
    [
        ('abc', 'abc', ''),
        ('abc', 'ac', "missing 'b'; moved 'c' (2 → 1)"),
        ('ac', 'abc', "extra 'b'; moved 'c' (1 → 2)"),
        ('ab', 'ba', "moved 'a' (0 → 1), 'b' (1 → 0)"),
        ('ab', 'ax', "missing 'b'; extra 'x'"),
        ('abcdefgh', 'h', "missing 'a', 'b', 'c' and 4 more; moved 'h' (7 → 0)"),
        ('aab', 'ab', "moved 'a' (0, 1 → 0), 'b' (2 → 1)"),
        ((0, 1), ('0', '1'), ''),
    ],
)
def test_what_is_missing_extra_and_moved(expected, found, told):
    assert class_difference(list(expected), tuple(found)) == told


def test_wordnet_ids_are_imagenets_names(monkeypatch):
    warnings = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: warnings.append(message))
    ids = ImageNetInfo().label_names()
    short = [name.split(',')[0] for name in IMAGENET_CATEGORIES]
    assert class_difference(ids, IMAGENET_CATEGORIES) == class_difference(short, ids) == class_difference(ids, ids) == ''
    hundred = range(0, 1000, 10)
    assert class_difference([ids[i] for i in hundred], [IMAGENET_CATEGORIES[i] for i in hundred]) == ''
    swapped = [ids[1], ids[0], *ids[2:]]
    assert class_difference(IMAGENET_CATEGORIES, swapped).startswith("moved 'tench' (0 → 1), 'goldfish' (1 → 0)")
    assert class_difference(IMAGENET_CATEGORIES, ids[1:]).startswith("missing 'tench'; moved 'goldfish' (1 → 0)")
    assert not warnings
    assert class_difference(ids[:2], ['Schleie', 'Goldfisch']) == '' and len(warnings) == 1
    assert "named 'n01440764', … and 'Schleie', … only the number is compared, 2" in warnings[0]
    assert class_difference(ids[:2], ['Schleie']) == '1 instead of 2'


def test_the_error_is_one_line_with_both_sides():
    check_classes('ab', 'ab', 'a and b', 'mend it')
    with pytest.raises(
        ValueError, match=r"^the classes of a and b differ \(2 and 1\): missing 'a'; moved 'b' \(1 → 0\): mend it$"
    ):
        check_classes('ab', 'b', 'a and b', 'mend it')


def test_names_given_to_a_folders_classes():
    check_renaming('ab', ['cat', 'dog'], 'x')
    check_renaming('ab', 'ab', 'x')
    with pytest.raises(ValueError, match=r"x has the classes that the config names in another order \(moved 'a' \(0 → 1\)"):
        check_renaming('ab', 'ba', 'x')
    with pytest.raises(ValueError, match='x holds 2 classes, the config names 1'):
        check_renaming('ab', ['cat'], 'x')


def test_names_of_a_data_set_and_of_a_label():
    requests = SampleRequests(2, 2, classes=['a', 'b'])
    assert class_names(Subset(requests, [0])) == ('a', 'b') and class_names(SampleRequests(2, 2)) is None
    assert [class_name(('a', 'b'), label) for label in (0, 1, 2)] == ['a', 'b', None] and class_name(None, 0) is None
