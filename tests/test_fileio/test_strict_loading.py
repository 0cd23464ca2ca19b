"""Strict loading: what differs is said in one text, and what is allowed to differ is told."""

import pytest
import torch
from torch import nn

from usp_mm.fileio.strict_loading import Misfit, explain_misfit, find_misfit, load_exactly


def network():
    return nn.ModuleDict(dict(body=nn.Linear(3, 4), head=nn.Linear(4, 2)))


def changed(without=(), **more):
    weights = {name: torch.full_like(x, 7.0) for name, x in network().state_dict().items()}
    return {name: x for name, x in (weights | more).items() if name not in without}


def test_weights_that_fit_are_loaded():
    module = network()
    assert not load_exactly(module, changed(), 'a.pth')
    assert all(bool((x == 7).all()) for x in module.state_dict().values())


@pytest.mark.parametrize(
    ('weights', 'told'),
    [
        (changed(without=['head.bias']), '1 missing (head.bias)'),
        (changed(tail=torch.zeros(1)), '1 unexpected (tail)'),
        (changed(**{'head.weight': torch.zeros(5, 4)}), '1 of another shape (head.weight [5, 4] instead of [2, 4])'),
        (
            changed(['body.weight', 'body.bias', 'head.bias'], tail=torch.zeros(1), **{'head.weight': torch.zeros(1)}),
            '3 missing (body.weight, body.bias, head.bias); 1 unexpected (tail); '
            '1 of another shape (head.weight [1] instead of [2, 4])',
        ),
        ({}, '4 missing (body.weight, body.bias, head.weight, …)'),
    ],
)
def test_what_differs_is_one_line(weights, told):
    with pytest.raises(ValueError, match='does not fit') as caught:
        load_exactly(network(), weights, 'a.pth', 'the judge', fix='give its own')
    assert str(caught.value) == f"'a.pth' does not fit the judge: {told}: give its own"
    assert str(find_misfit(network().state_dict(), weights)) == told


def test_what_is_allowed_is_told_and_the_rest_is_not():
    module, weights = network(), changed(without=['head.bias'], tail=torch.zeros(1))
    let = load_exactly(module, weights, 'a.pth', allow_missing=('head.',), allow_unexpected=('ta',))
    assert let == Misfit(missing=('head.bias',), unexpected=('tail',)) and bool((module['body'].weight == 7).all())
    with pytest.raises(
        ValueError, match=r"^'a\.pth' does not fit the config: 1 missing \(head\.bias\): give the config it was"
    ):
        load_exactly(module, weights, 'a.pth', allow_missing=('body.',), allow_unexpected=('tail',))
    with pytest.raises(ValueError, match=r'config: 1 of another shape \(body\.bias \[9\] instead of \[4\]\): '):
        load_exactly(
            module, weights | {'body.bias': torch.zeros(9)}, 'a.pth', allow_missing=('head.',), allow_unexpected=('t',)
        )


class Resizes(nn.Module):
    """Has a table, which it cuts to its own length when it is loaded."""

    def __init__(self, length):
        super().__init__()
        self.table, self.scale = nn.Parameter(torch.zeros(length)), nn.Parameter(torch.zeros(1))
        self.register_load_state_dict_pre_hook(self._cut)

    def _cut(self, module, state, prefix, *_):
        state[f'{prefix}table'] = state[f'{prefix}table'][: len(self.table)]


def test_what_a_module_resizes_by_itself_may_have_another_size():
    weights = dict(table=torch.arange(5.0), scale=torch.ones(1))
    module = Resizes(3)
    assert not load_exactly(module, weights, 'a.pth') and module.table.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r'config: 1 of another shape \(scale \[2\] instead of \[1\]\): '):
        load_exactly(Resizes(3), weights | dict(scale=torch.ones(2)), 'a.pth')
    assert not find_misfit(module.state_dict(), weights, resized=('table',)) and find_misfit(module.state_dict(), weights)


def test_an_extra_state_is_compared_by_its_type():
    told = str(find_misfit({'_extra_state': b'', 'a': torch.zeros(2)}, {'_extra_state': torch.zeros(3), 'a': torch.zeros(2)}))
    assert told == '1 of another shape (_extra_state [3] instead of bytes)'


def test_a_librarys_error_becomes_the_same_line():
    with pytest.raises(ValueError, match=r"^the hub does not fit teacher 'x': Missing key.*\"head\.bias\".*: fetch it again$"):
        with explain_misfit('the hub', "teacher 'x'", 'fetch it again'):
            network().load_state_dict(changed(without=['head.bias']))
    with pytest.raises(torch.OutOfMemoryError), explain_misfit('the hub', 'x', 'y'):
        raise torch.OutOfMemoryError('full')
