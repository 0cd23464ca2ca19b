"""Checkpoints from files: the one reader, to which every file is data and never code."""

import hashlib
import re
import struct
import textwrap
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from mmengine.logging import MMLogger
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from usp_mm.addresses import local_file

SAFE = '.safetensors'
PICKLES = ('.ckpt', '.pt', '.pth')
#: Where training frameworks put the weights in a checkpoint; of several, the first that is there counts.
CONTAINERS = ('state_dict', 'model', 'ema', 'state_dict_ema', 'model_ema')
#: What wrappers put before a name: DistributedDataParallel and AveragedModel, and torch.compile.
_WRAPPERS = re.compile(r'^(?:module\.|_orig_mod\.)+|(?<=\.)(?:_orig_mod\.)+')
#: Counts of updates that AveragedModel of torch and of MMEngine keep beside the network that they wrap.
_COUNTERS = ('n_averaged', 'steps')
#: What reading a pickle as data fails with; a broken file can fail anywhere in it.
_FAILURES = (
    UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    AssertionError, struct.error, OverflowError, zipfile.BadZipFile,
)  # fmt: skip
#: What torch says of a name, or of an instruction, that no data need.
_CODE = re.compile(
    r'(?:Unsupported|Trying to \w+ unsupported|Can only \w+ for) [^:]*?:? ?(?:GLOBAL )?([\w.]+)(?= was| whose|\.$|$)'
)
#: What this package's own guard says (`usp_mm.compat.history_buffer_method`).
_GUARDED = re.compile(r"(attribute '.+' of .+): only methods of HistoryBuffer")


def read_checkpoint(path: str | Path, map_location: Any = 'cpu', mmap: bool = False) -> dict[str, Any]:
    """All that is in a checkpoint: of a `.safetensors` file name -> tensor, on the CPU; of any other, what torch.save wrote.

    Args:
        path: of a file, or an address, see `usp_mm.addresses.local_file`.
        map_location: torch.load's; of no effect on safetensors.
        mmap: leave the tensors in the file until they are used.

    Raises:
        FileNotFoundError: no such file.
        ConnectionError: an address that can't be reached.
        ValueError: a broken file, one that would run code, or one that holds no dict.
    """
    path = local_file(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not a file')
    try:
        if path.suffix == SAFE:
            return dict(load_file(path))
        mmap = mmap and zipfile.is_zipfile(path)
        content = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as error:
        if 'deserialize object on' in str(error):
            raise ValueError(f"{path} holds tensors of a device that is not here: read it with map_location='cpu'") from error
        raise ValueError(f'{path} {_reason(error)}') from error
    except OSError as error:
        if error.filename is not None:  # not to be opened
            raise
        raise ValueError(f'{path} {_reason(error)}') from error  # cut short: torch seeks before its start
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__}, not a checkpoint: expected names and tensors')
    return content


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Name -> tensor of a `.safetensors`, `.ckpt`, `.pt` or `.pth` file, on the CPU; names as in `weights_in`.

    Raises:
        FileNotFoundError: no such file.
        ConnectionError: an address that can't be reached.
        ValueError: another kind of file, a broken one, one that holds more than data, or what `weights_in` refuses.
    """
    return read_trained(path).weights


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds of a trained model, read once.

    Attributes:
        path: of the file.
        weights: name -> tensor, on the CPU; names as in `weights_in`.
        meta: what MMEngine noted beside them; empty of a file of weights alone.
    """

    path: Path
    weights: dict[str, Tensor]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> Sequence[str] | None:
        """Names that MMEngine noted of the training data set."""
        return (self.meta.get('dataset_meta') or {}).get('classes') or None


def read_trained(path: str | Path) -> Checkpoint:
    """The weights of a file and what was noted beside them; kinds of files and errors are those of `read_weights`."""
    path = local_file(path)
    if path.is_file() and path.suffix not in (SAFE, *PICKLES):
        raise ValueError(f"{path}: weights are read from .safetensors, .ckpt, .pt or .pth files, not from '{path.suffix}'")
    content = read_checkpoint(path, mmap=True)
    meta = content.get('meta')
    return Checkpoint(path, weights_in(content, path), meta if isinstance(meta, Mapping) else {})


def weights_in(content: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint that was read from `path`, under the network's own names.

    They are the file itself or stand under one of `CONTAINERS`; where a file has several of them, the log tells which one is
    taken. Names lose what wrappers put before them, see `unwrapped_names`.

    Raises:
        ValueError: no weights, two names that become one, or a tensor that `check_finite` refuses.
    """
    sets = [key for key in CONTAINERS if is_weights(content.get(key))]
    weights = content[sets[0]] if sets else content
    if not is_weights(weights):
        raise ValueError(
            f'{path} holds no state dict: expected name -> tensor, plain or under {list(CONTAINERS)}{_beside_tensors(content)}'
        )
    if len(sets) > 1:
        MMLogger.get_current_instance().info(f"'{path}' holds weights under {', '.join(sets)}: those under {sets[0]} are taken")
    return state_of_module(weights, path)


def state_of_module(state: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """A module's state under its own names: tensors, and whatever else its `get_extra_state` gave, which is left as it is.

    Raises:
        ValueError: two names that become one, or a tensor that `check_finite` refuses.
    """
    check_finite({name: x for name, x in state.items() if isinstance(x, Tensor)}, path)
    names = unwrapped_names(state, path)
    if all(old == new for old, new in names.items()) and len(names) == len(state) and isinstance(state, dict):
        return state  # as it is, with the versions of layers that a state dict carries
    return {new: state[old] for old, new in names.items()}


def is_weights(value: Any) -> bool:
    """Whether this is a dict of names and tensors, and not empty."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(x, Tensor) for name, x in value.items())
    )


def _beside_tensors(content: Mapping[str, Any]) -> str:
    """What keeps the first container from being weights, in words."""
    found: Mapping[str, Any] = next((content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), {})
    other = next((name for name, x in found.items() if not isinstance(x, Tensor)), None)
    return '' if other is None else f', and {other} is a {type(found[other]).__name__}: leave it out of the file'


def unwrapped_names(names: Iterable[str], path: str | Path) -> dict[str, str]:
    """Name in a file -> the network's own name.

    `module.` and `_orig_mod.` are taken off the beginning, however nested, and `_orig_mod.` also within (a part of a network
    that torch.compile wrapped). The count of updates beside an averaged network (`n_averaged`, `steps`) is left out.

    Raises:
        ValueError: two names of the file become one.
    """
    names = list(names)
    result = {name: _WRAPPERS.sub('', name) for name in names}
    if all(name in _COUNTERS or name.startswith(('module.', '_orig_mod.')) for name in names):
        result = {old: new for old, new in result.items() if old not in _COUNTERS}
    first: dict[str, str] = {}
    for old, new in result.items():
        if first.setdefault(new, old) != old:
            raise ValueError(f"'{path}' holds '{first[new]}' and '{old}', both for '{new}': leave one of them out of the file")
    return result


def check_finite(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights of a training that diverged.

    Everything is read once, as loading would do later: a file of 1 GB in the page cache takes
    0.1 to 0.3 s on one core in float32, 0.3 to 1 s in 16 bits and 8 s in float8 (reading it took 0.7 to 2 s beside it).

    Raises:
        ValueError: names the first tensor with a NaN or an infinite number.
    """
    name = first_not_finite(weights)
    if name is not None:
        numbers = weights[name].float() if weights[name].element_size() == 1 else weights[name]
        nan, inf = int(numbers.isnan().sum()), int(numbers.isinf().sum())
        raise ValueError(
            f"'{path}': of the {numbers.numel()} numbers of {name}, {nan} are NaN and {inf} infinite: the training "
            'diverged or the file is damaged, take an earlier checkpoint'
        )


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """The first name whose tensor holds NaN or an infinite number.

    Integers are finite, and so is an additive mask: nothing but 0 and -inf. Tensors on a GPU cost one synchronisation.
    """
    kept = {name: x for name, x in weights.items() if (x.is_floating_point() or x.is_complex()) and not x.is_meta}
    sums = {name: _sum(value).isfinite() for name, value in kept.items()}  # NaN and infinity stay in a sum: one pass
    doubtful: list[str] = []
    for device in {x.device for x in sums.values()}:
        names = [name for name, x in sums.items() if x.device == device]
        fine = torch.stack([sums[name] for name in names]).tolist()
        doubtful += [name for name, ok in zip(names, fine, strict=True) if not ok]
    return next((name for name in kept if name in doubtful and not _is_finite(kept[name])), None)


def _sum(value: Tensor) -> Tensor:
    if value.element_size() == 1:  # float8 has no arithmetic
        value = value.float()
    return value.detach().sum(dtype=value.dtype if value.element_size() >= 4 else torch.float32)


def _is_finite(value: Tensor) -> bool:
    """Exactly: finite numbers may have a sum that is not."""
    if value.element_size() == 1:
        value = value.float()
    return bool(value.isfinite().all()) or bool(((value == -torch.inf) | (value == 0)).all())


def weights_hash(network: nn.Module) -> str:
    """First 16 hex digits of the SHA-256 over sorted names and weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def told_misfit(error: Exception) -> str:
    """What a module's `load_state_dict` says of names and shapes, on one line."""
    lines = [textwrap.shorten(line, 300) for line in str(error).splitlines()]
    return '; '.join(lines[1:4] or lines)


def _reason(error: Exception) -> str:
    text = ' '.join(str(error).split())
    name = _CODE.search(text) or _GUARDED.search(text) if isinstance(error, UnpicklingError) else None
    if name:
        return (
            f'holds more than data ({name[1]}) and would have to run code to be read, which is refused: '
            'save its state dict alone'
        )
    if 'Unsupported operand' in text:
        return (
            'is broken, no checkpoint, or holds more than data, which is refused: copy it again, or save its state dict alone'
        )
    return f'is broken, cut short or no checkpoint: copy it again ({_told(error, text)})'


def _told(error: Exception, text: str) -> str:
    """The part of a long message that says something."""
    text = text.split('WeightsUnpickler error:')[-1].split('Please file an issue')[0].strip()
    return type(error).__name__ if isinstance(error, KeyError) or not text else text[:160]


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """A local checkpoint as MMEngine passes it on: weights under `state_dict` as `weights_in` has them; alone, with no `meta`.

    A `state_dict` that is empty, or holds more than tensors (a layer's `_extra_state`), is handed on as such.
    The configs that it holds are left out: MMEngine's `resume` would execute one, its inferencers without a config another.
    """
    path = Path(filename).expanduser()
    content = read_checkpoint(path, map_location)
    if path.suffix == SAFE or is_weights(content):
        return dict(state_dict=weights_in(content, path), meta={})
    state = content.get('state_dict')
    if isinstance(state, dict) and all(isinstance(name, str) for name in state) and not is_weights(state):
        content['state_dict'] = state_of_module(state, path)
    else:
        content['state_dict'] = weights_in(content, path)
    hub = content.get('message_hub')
    for holder in (content.get('meta'), hub.get('runtime_info') if isinstance(hub, dict) else None):
        if isinstance(holder, dict):
            holder.pop('config', None)
            holder.pop('cfg', None)
    return content


def load_from_address(address: str, map_location: Any = None, **_: Any) -> dict[str, Any]:
    """A checkpoint from an address, kept where `usp_mm.addresses` keeps files, and read as a local one."""
    return load_from_local(str(local_file(address)), map_location)
