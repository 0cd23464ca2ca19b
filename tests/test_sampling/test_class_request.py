"""What somebody means by a class."""

import pytest
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from usp_mm.sampling.class_request import parse_classes


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


def test_a_number_that_is_also_a_name():
    names = [str(i) for i in sorted(range(12), key=str)]  # as folders 0 … 11 are sorted
    assert names[10] == '8' and names[2] == '10'
    for entry in ('10', '10:3'):
        with pytest.raises(
            ValueError,
            match=r"class '10' is the name of the class labelled 2, and 10 the label of '8': ask for name=10 or label=10",
        ):
            parsed([entry], 12, names)
    assert parsed(['label=10', 'name=10', 'label=10:3', 'name=10:2', 10], 12, names) == [
        (10, '8', 4), (2, '10', 4), (10, '8', 3), (2, '10', 2), (10, '8', 4),
    ]  # fmt: skip
    assert parsed(['0', '1'], 12, names) == [(0, '0', 4), (1, '1', 4)]
    assert parsed(range(10), 10, [str(i) for i in range(10)]) == parsed('0123456789', 10, [str(i) for i in range(10)])


def test_numbers_that_are_names_alone_or_of_other_numbers():
    ones = [str(i) for i in range(1, 11)]
    ones.sort(key=int)
    assert parsed(['10'], 10, ones) == [(9, '10', 4)], 'out of range as a label'
    with pytest.raises(ValueError, match="class '0': none has this name, and the one labelled 0 is named '1': ask for label=0"):
        parsed(['0'], 10, ones)
    with pytest.raises(ValueError, match="class '5' is the name of the class labelled 4, and 5 the label of '6'"):
        parsed(['5'], 10, ones)
    assert parsed(['1990', 1], 2, ['1990', '2000']) == [(0, '1990', 4), (1, '2000', 4)]
    padded = [f'{i:03d}' for i in range(12)]
    assert parsed(['7', '007', '11'], 12, padded) == [(7, '007', 4), (7, '007', 4), (11, '011', 4)]
    with pytest.raises(ValueError, match="class '2' is the name of the class labelled 1, and 2 the label of '003'"):
        parsed(['2'], 2 + 1, ['001', '002', '003'])


def test_exact_names_come_first():
    assert parsed(['a', 'A', 'a:2', 'a:2:3'], 3, ['A', 'a', 'a:2']) == [(1, 'a', 4), (0, 'a', 4), (2, 'a:2', 4), (2, 'a:2', 3)]
    with pytest.raises(ValueError, match="class 'A' is the name of several, 0 and 1: give the number"):
        parsed(['name=A'], 2, ['A', 'A'])
    for entry, message in (('label=12', 'class 12 is out of range'), ('name=x', "unknown class 'x'")):
        with pytest.raises(ValueError, match=message):
            parsed([entry], 3, ['A', 'a', 'b'])


def test_mistakes_without_names():
    with pytest.raises(ValueError, match="class 'cat': neither config nor checkpoint names the classes, give a number below 3"):
        parsed(['cat'], 3)
    with pytest.raises(ValueError, match='no classes'):
        parsed([], 3)


def test_an_unknown_name_is_told_with_those_that_are_like_it_or_the_first():
    names = ['digit 1', 'digit 7', 'Digit 17', 'letter a', 'letter b']
    with pytest.raises(ValueError, match=r"number below 5 or a name; did you mean 'digit 7', 'digit 17', 'digit 1'\?$"):
        parse_classes(['digitt 7'], 5, names, 1)
    with pytest.raises(ValueError, match=r"unknown class 'zebra': .* or a name \('digit 1', 'digit 7', 'digit 17', …\)$"):
        parse_classes(['zebra'], 5, names, 1)
    with pytest.raises(ValueError, match=r" or a name \('cat', 'dog'\)$"):
        parse_classes(['zebra'], 2, ['cat', 'dog'], 1)
