"""What somebody means by a class."""

import pytest
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from usp_mm.apis.class_request import parse_classes


def parsed(classes, num_classes=1000, names=None, per_class=4):
    return [(request.label, request.name, request.count) for request in parse_classes(classes, num_classes, names, per_class)]


def test_imagenet_goes_by_number_and_by_any_synonym():
    entries = [207, '88:2', 'Golden Retriever', 'tinca TINCA:3', ' man-eater']
    assert parsed(entries) == [
        (207, 'golden retriever', 4),
        (88, 'macaw', 2),
        (207, 'golden retriever', 4),
        (0, 'tench', 3),
        (2, 'great white shark', 4),
    ]
    whole = IMAGENET_CATEGORIES[2]
    assert ',' in whole and parsed([whole], per_class=1) == [(2, 'great white shark', 1)]


def test_folder_names_of_imagenet_still_go_by_english():
    names = [f'n{i:08d}' for i in range(1000)]
    assert parsed(['n00000207', 'golden retriever'], names=names) == [(207, 'golden retriever', 4)] * 2
    with pytest.raises(ValueError, match="unknown class 'golden retriever'"):
        parsed(['golden retriever'], names=['thing'] + names[1:])


def test_names_of_another_data_set():
    assert parsed(['Dog', 0, 'fish:1'], 3, ('cat', 'dog', 'fish')) == [(1, 'dog', 4), (0, 'cat', 4), (2, 'fish', 1)]
    assert parsed([2], 3) == [(2, '2', 4)]


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ('1000', 'class 1000 is out of range: the generator has 1000 classes, 0 to 999'),
        (-1, 'class -1 is out of range'),
        ('golden retreiver', "unknown class 'golden retreiver': .*; did you mean 'golden retriever'"),
        ('crane', "class 'crane' is the name of several, 134 and 517: give the number"),
        ('207:0', "class '207:0': 0 pictures are asked for, give 1 or more"),
        ('207:-2', "class '207:-2': -2 pictures"),
    ],
)
def test_mistakes(entry, message):
    with pytest.raises(ValueError, match=message):
        parsed([entry])


def test_mistakes_without_names():
    with pytest.raises(ValueError, match="class 'cat': neither config nor checkpoint names the classes, give a number below 3"):
        parsed(['cat'], 3)
    with pytest.raises(ValueError, match='no classes'):
        parsed([], 3)
