"""Read checkpoints from files. All of the package reads them here, and no code in a file is ever run."""

import hashlib
import re
import struct
import textwrap
import zipfile
import zlib
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

from usp_mm.fileio.addresses import local_file
from usp_mm.fileio.atomic import read_json
from usp_mm.fileio.checksums import damaged_member, is_intact, is_stored, is_zip

SAFE = '.safetensors'
#: Files of a model folder: its config, its weights, and what is known of them.
FOLDER_CONFIG, FOLDER_WEIGHTS, FOLDER_INFO = 'config.py', 'model.safetensors', 'run_info.json'
PICKLES = ('.ckpt', '.pt', '.pth')
#: Keys under which training frameworks store the weights in a checkpoint; the first one present is used.
CONTAINERS = ('state_dict', 'model', 'ema', 'state_dict_ema', 'model_ema')
#: Prefixes that DistributedDataParallel and AveragedModel ('module.') and torch.compile ('_orig_mod.') add to names.
_WRAPPERS = re.compile(r'^(?:module\.|_orig_mod\.)+|(?<=\.)(?:_orig_mod\.)+')
#: Names under which torch's and MMEngine's AveragedModel store their number of updates.
_COUNTERS = ('n_averaged', 'steps')
#: Exceptions raised by reading a broken pickle as data.
_FAILURES = (
    UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    AssertionError, struct.error, OverflowError, zipfile.BadZipFile, zlib.error, MemoryError,
)  # fmt: skip
#: torch's messages about a name or an instruction that plain data do not need.
_CODE = re.compile(
    r'(?:Unsupported|Trying to \w+ unsupported|Can only \w+ for) [^:]*?:? ?(?:GLOBAL )?([\w.]+)(?= was| whose|\.$|$)'
)
#: The message of this package's own guard (`usp_mm.compat.torch.history_buffer_method`).
_GUARDED = re.compile(r"(attribute '.+' of .+): only methods of HistoryBuffer")


def read_checkpoint(path: str | Path, map_location: Any = 'cpu', mmap: bool = False, verify: bool = True) -> dict[str, Any]:
    """Read a whole checkpoint: name -> tensor, on the CPU, from a `.safetensors` file; what torch.save wrote from any other.

    Args:
        path: A file, or an address as in `usp_mm.fileio.addresses.local_file`.
        map_location: As in `torch.load`; has no effect on safetensors.
        mmap: Whether to leave the tensors in the file until they are used; a compressed file is read whole.
        verify: Whether to compare the content with the checksums in the file, if it has any (see `usp_mm.fileio.checksums`).

    Raises:
        FileNotFoundError: The file does not exist.
        ConnectionError: The address can't be reached.
        ValueError: The file is broken or damaged, would run code, or holds no dict.
    """
    path = local_file(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not a file')
    try:
        content, damaged = _read_safe(path, verify) if path.suffix == SAFE else _read_torch(path, map_location, mmap, verify)
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as error:
        if 'deserialize object on' in str(error):
            raise ValueError(f"{path} holds tensors of a device that is not here: read it with map_location='cpu'") from error
        raise ValueError(f'{path} {_reason(error)}') from error
    except OSError as error:
        if error.filename is not None:  # the file can't be opened
            raise
        raise ValueError(f'{path} {_reason(error)}') from error  # cut short: torch seeks before its start
    if damaged is not None:
        raise ValueError(f'{path} is damaged, the checksum of {damaged} differs: copy it again, or take another checkpoint')
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__}, not a checkpoint: expected names and tensors')
    return content


def _read_safe(path: Path, verify: bool) -> tuple[Any, str | None]:
    """The content of a file, and in words what of it is damaged, as far as checksums show."""
    tensors = dict(load_file(path))
    return tensors, 'its tensors' if verify and not is_intact(path, tensors) else None


def _read_torch(path: Path, map_location: Any, mmap: bool, verify: bool) -> tuple[Any, str | None]:
    zipped = is_zip(path)
    damaged = damaged_member(path) if verify and zipped else None
    if damaged is not None:
        return None, f"'{damaged}'"
    mmap = mmap and zipped and is_stored(path)  # of a compressed member, torch would map the compressed bytes
    return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap), None


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read name -> tensor, on the CPU, from a `.safetensors`, `.ckpt`, `.pt` or `.pth` file; names as in `weights_in`.

    Raises:
        FileNotFoundError: The file does not exist.
        ConnectionError: The address can't be reached.
        ValueError: The file has another suffix, is broken, holds more than data, or is refused by `weights_in`.
    """
    return read_trained(path).weights


@dataclass(frozen=True)
class Checkpoint:
    """The weights and metadata of a trained model, read from a file once.

    Attributes:
        path: The file.
        weights: Name -> tensor, on the CPU; names as in `weights_in`.
        meta: Metadata that MMEngine saved with the weights; empty if the file holds only weights.
    """

    path: Path
    weights: dict[str, Tensor]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> Sequence[str] | None:
        """Class names of the training data set, as MMEngine saved them; None if it did not."""
        return (self.meta.get('dataset_meta') or {}).get('classes') or None


def read_trained(path: str | Path, verify: bool = True) -> Checkpoint:
    """Read the weights of a file and the metadata saved with them, of a model folder's weights those in its `run_info.json`.

    Suffixes and errors are those of `read_weights`; `verify` is that of `read_checkpoint`.
    """
    path = local_file(path)
    if path.is_file() and path.suffix not in (SAFE, *PICKLES):
        raise ValueError(f"{path}: weights are read from .safetensors, .ckpt, .pt or .pth files, not from '{path.suffix}'")
    content = read_checkpoint(path, mmap=True, verify=verify)
    meta = _folder_meta(path) if path.name == FOLDER_WEIGHTS else content.get('meta')
    return Checkpoint(path, weights_in(content, path), meta if isinstance(meta, Mapping) else {})


def _folder_meta(path: Path) -> dict[str, Any]:
    """Class names and VAE of a model folder, under the keys of a checkpoint's metadata."""
    info = read_json(path.parent / FOLDER_INFO, 'export the model again') or {}
    return dict(dataset_meta=dict(classes=info.get('classes')), vae=info.get('vae'))


def weights_in(content: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Find the weights in a checkpoint that was read from `path`, and give them the network's own names.

    The weights are the whole checkpoint or lie under one of `CONTAINERS`; if several are present, the log says which one is
    used. Prefixes that wrappers added to the names are removed, see `unwrapped_names`.

    Raises:
        ValueError: There are no weights, two names become the same, or `check_finite` refuses a tensor.
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
    """Give a module's state its own names: tensors, and values of `get_extra_state`, which are left unchanged.

    Raises:
        ValueError: Two names become the same, or `check_finite` refuses a tensor.
    """
    check_finite({name: x for name, x in state.items() if isinstance(x, Tensor)}, path)
    names = unwrapped_names(state, path)
    if all(old == new for old, new in names.items()) and len(names) == len(state) and isinstance(state, dict):
        return state  # as it is, with the versions of layers that a state dict carries
    return {new: state[old] for old, new in names.items()}


def is_weights(value: Any) -> bool:
    """Whether `value` is a non-empty dict from names to tensors."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(x, Tensor) for name, x in value.items())
    )


def _beside_tensors(content: Mapping[str, Any]) -> str:
    """The end of an error message: which entry of the first container is not a tensor ('' if all are)."""
    found: Mapping[str, Any] = next((content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), {})
    other = next((name for name, x in found.items() if not isinstance(x, Tensor)), None)
    return '' if other is None else f', and {other} is a {type(found[other]).__name__}: leave it out of the file'


def unwrapped_names(names: Iterable[str], path: str | Path) -> dict[str, str]:
    """Map each name in a file to the network's own name.

    The prefixes `module.` and `_orig_mod.` are removed, however nested, and `_orig_mod.` also inside a name (where a part of a
    network was compiled). The number of updates of an averaged network (`n_averaged`, `steps`) is left out.

    Raises:
        ValueError: Two names of the file become the same.
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
    """Refuse weights that contain NaN or infinite numbers, as after a training that diverged.

    All weights are read once. For a file of 1 GB in the page cache this takes 0.1 to 0.3 s on one core in float32, 0.3 to 1 s
    in 16 bits and 8 s in float8; loading the file takes another 0.7 to 2 s.

    Raises:
        ValueError: A tensor holds such a number; the message names the first one.
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
    """The name of the first tensor that holds NaN or infinite numbers, or None.

    Integers count as finite, and so does an additive mask of only 0 and -inf. Tensors on a GPU cost one synchronisation.
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
    """Check each number, since the sum of finite numbers may overflow; a mask of only 0 and -inf passes."""
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


def misfit_line(error: Exception) -> str:
    """The differences in names and shapes from an error of `load_state_dict`, on one line."""
    lines = [textwrap.shorten(line, 300) for line in str(error).splitlines()]
    return '; '.join(lines[1:4] or lines)


def _reason(error: Exception) -> str:
    text = ' '.join(str(error).split())
    name = _CODE.search(text) or _GUARDED.search(text) if isinstance(error, UnpicklingError) else None
    if name:
        return (
            f'holds more than data ({name[1]}) and would have to run code to be read, which is refused: '
            'save only its state dict'
        )
    if 'Unsupported operand' in text:
        return 'is broken, no checkpoint, or holds more than data, which is refused: copy it again, or save only its state dict'
    return f'is broken, cut short or no checkpoint: copy it again ({_error_line(error, text)})'


def _error_line(error: Exception, text: str) -> str:
    """The informative part of a long error message."""
    text = text.split('WeightsUnpickler error:')[-1].split('Please file an issue')[0].strip()
    return type(error).__name__ if isinstance(error, KeyError) or not text else text[:160]


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a local checkpoint in MMEngine's form: the weights under `state_dict`, with the names that `weights_in` gives.

    A file with nothing but weights gets an empty `meta`. A `state_dict` that is empty or holds more than tensors (a layer's
    `_extra_state`) is accepted. Configs are removed: MMEngine's `resume`, and inferencers without a config, would execute them.
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
    """Download a checkpoint as `usp_mm.fileio.addresses` does, and read it like a local one."""
    return load_from_local(str(local_file(address)), map_location)
