"""Write, check and describe a cache of VAE latents.

    usp cache write data/imagenet/train data/latents-224 --vae sd-f8d4 --img-size 224
    torchrun --nproc-per-node 8 --no-python usp cache write ...      # the same cache, byte for byte, sooner
    usp cache write data/imagenet/train data/latents-256 --img-size 256 --teacher dinov2-b    # for REPA
    usp cache import CACHED data/latents-256 --images data/imagenet/train      # of MAR's and USP's code
    usp cache verify data/latents-224
    usp cache info data/latents-224

A `write` that was killed goes on where it stopped when the same command is run again. `--teacher` also adds an encoder's
tokens to a cache that has none: the latents stay as they are, and can be read meanwhile. `import` takes over a folder of `.npz`
with `moments` and `moments_flip`, as the official code caches them, without encoding; --images checks some of them.
"""

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usp_mm.config.arguments import ToolParser
from usp_mm.config.options import DECODERS, LAYOUTS, STORAGES, STORES
from usp_mm.presets import VAES
from usp_mm.runtime.console import table_console

if TYPE_CHECKING:
    from usp_mm.datasets.latent_cache.plan import TokenEncoder

ENCODE_DTYPES = {'float32': 'float32', 'tf32': 'float32', 'bfloat16': 'bfloat16', 'float16': 'float16'}

#: Help of --shard-size.
SHARDS = 'images a shard (default: about 32 shards, of at most 16384 images)'


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    write = commands.add_parser('write', help='encode a folder of images, or finish doing so')
    write.add_argument('data', help='folder with one sub-folder of images a class, or with images only')
    write.add_argument(
        '--layout',
        choices=LAYOUTS,
        help='how to read a folder if there are two ways: its sub-folders are classes, or every image counts, without classes',
    )
    write.add_argument('out', type=Path, help="the cache's folder")
    write.add_argument('--vae', default='sd-f8d4', choices=sorted(VAES), help='preset (default: %(default)s)')
    write.add_argument('--vae-path', help="weights of the VAE (default: the preset's hub id)")
    write.add_argument('--img-size', type=int, default=224, help='side of the crops, pixels (default: %(default)s)')
    write.add_argument(
        '--store', default='moments', choices=STORES, help='what to keep of the posterior (default: %(default)s)'
    )
    write.add_argument(
        '--dtype',
        default='float16',
        choices=STORAGES,
        help='dtype that is stored; float16 keeps the log-variance in 8 bits (default: %(default)s)',
    )
    write.add_argument(
        '--encode-dtype', default='float32', choices=ENCODE_DTYPES, help='arithmetic of VAE and teacher (default: %(default)s)'
    )
    write.add_argument('--fast', action='store_true', help='--encode-dtype bfloat16')
    write.add_argument(
        '--teacher',
        metavar='NAME',
        help='cache the tokens of this encoder too: dinov2-b, any model of timm, or a config whose model.repa.teacher it is',
    )
    write.add_argument('--teacher-path', help="the teacher's weights, file or folder (default: the hub)")
    write.add_argument('--no-flip', action='store_true', help='leave out the mirrored images (validation)')
    write.add_argument(
        '--random-crops', type=int, default=0, metavar='K', help='K random resized crops in place of the centre crop'
    )
    write.add_argument(
        '--crop-scale', type=float, nargs=2, default=(0.2, 1.0), metavar=('MIN', 'MAX'), help='area of a random crop'
    )
    write.add_argument('--seed', type=int, default=0, help='seed of the random crops')
    write.add_argument('--shard-size', type=int, help=SHARDS)
    write.add_argument(
        '--encode-batch-size',
        type=int,
        help='images a call of VAE or teacher, part of what is cached (default: as it was begun, else 64 on a GPU, fewer above '
        '256 pixels, and 16 on a CPU)',
    )
    write.add_argument(
        '--batch-size', type=int, help='images decoded and moved at a time (default: 64 or more, in whole calls)'
    )
    write.add_argument(
        '--workers', type=int, default=DECODERS, help='image decoding processes of each process (default: %(default)s)'
    )
    write.add_argument('--device', help="default: this process's GPU, else the CPU")
    add_import(commands)
    add_verify_and_info(commands)
    return parser.parse_args()


def add_verify_and_info(commands: Any) -> None:
    """Add the commands that read a cache."""
    verify = commands.add_parser('verify', help='compare every file with its checksum; exit code 1 if one differs')
    verify.add_argument('out', type=Path)
    verify.add_argument('--delete-bad', action='store_true', help='delete bad files, so that `write` redoes them')
    commands.add_parser('info', help='print what a cache holds').add_argument('out', type=Path)


def add_import(commands: Any) -> None:
    parser = commands.add_parser('import', help='take over latents that the official code cached, a file an image')
    parser.add_argument('source', help='folder with one sub-folder of .npz files a class, or with files only')
    parser.add_argument('out', type=Path, help="the cache's folder")
    parser.add_argument('--vae', default='sd-f8d4', choices=sorted(VAES), help='preset they are of (default: %(default)s)')
    parser.add_argument('--vae-path', help="weights of the VAE (default: the preset's hub id)")
    parser.add_argument('--images', metavar='DIR', help='the folder that was encoded: encode some images again and compare')
    parser.add_argument('--check', type=int, default=8, metavar='N', help='how many (default: %(default)s)')
    parser.add_argument('--store', default='moments', choices=STORES, help='what to keep (default: %(default)s)')
    parser.add_argument('--dtype', default='float16', choices=STORAGES, help='dtype that is stored (default: %(default)s)')
    parser.add_argument('--shard-size', type=int, help=SHARDS)
    parser.add_argument('--workers', type=int, default=DECODERS, help='processes that read files (default: %(default)s)')


def import_(args: argparse.Namespace) -> int:
    if not Path(args.source).is_dir() and '://' not in args.source:
        raise FileNotFoundError(f"folder '{args.source}' does not exist: give the folder that holds the .npz files")
    if args.check < 1:
        raise ValueError(f'--check {args.check} must be 1 or more; without --images nothing is encoded')
    from usp_mm.datasets.latent_cache.importer import import_cache
    from usp_mm.datasets.main_process import meet_processes
    from usp_mm.vaes import build_codec

    meet_processes()
    codec = build_codec(args.vae, path=args.vae_path)
    stored = dict(dtype=args.dtype, store=args.store, shard_size=args.shard_size)
    import_cache(args.source, args.out, codec, **stored, images=args.images, num_checked=args.check, num_workers=args.workers)
    return 0


def write(args: argparse.Namespace) -> int:
    if not Path(args.data).is_dir() and '://' not in args.data:
        raise FileNotFoundError(f"image folder '{args.data}' does not exist: give the folder that holds the class folders")
    if args.teacher_path and not args.teacher:
        raise ValueError(f"--teacher-path '{args.teacher_path}' without --teacher: name the encoder whose weights these are")
    import torch

    from usp_mm.datasets.latent_cache.plan import CacheSpec, images_a_call
    from usp_mm.datasets.latent_cache.writer import write_cache
    from usp_mm.datasets.main_process import meet_processes
    from usp_mm.vaes import build_codec

    if args.fast:
        encode_fast(args)
    meet_processes()
    gpu = f'cuda:{os.environ.get("LOCAL_RANK", 0)}'
    device = args.device or (gpu if torch.cuda.is_available() else 'cpu')
    calls = args.encode_batch_size
    if calls is None:
        calls = images_a_call(args.out, args.img_size, device)
    spec = CacheSpec(
        img_size=args.img_size,
        store=args.store,
        dtype=args.dtype,
        encode_dtype=args.encode_dtype,
        encode_batch_size=calls,
        flip=not args.no_flip,
        random_crops=args.random_crops,
        crop_scale=tuple(args.crop_scale),
        seed=args.seed,
        shard_size=args.shard_size,
    )
    batch_size = calls * math.ceil(64 / calls) if args.batch_size is None else args.batch_size
    codec = build_codec(args.vae, path=args.vae_path, dtype=ENCODE_DTYPES[args.encode_dtype])
    teacher = load_teacher(args) if args.teacher else None
    write_cache(args.data, args.out, codec, spec, batch_size, args.workers, device, teacher, LAYOUTS.get(args.layout))
    return 0


def encode_fast(args: argparse.Namespace) -> None:
    """Apply --fast to the options of a cache.

    Raises:
        ValueError: --encode-dtype has a conflicting value.
    """
    from mmengine.logging import MMLogger

    from usp_mm.engine.optim.amp import slow_bfloat16

    if args.encode_dtype not in ('float32', 'bfloat16'):
        raise ValueError(f'--fast encodes in bfloat16, --encode-dtype says {args.encode_dtype}: leave one of them out')
    args.encode_dtype = 'bfloat16'
    for line in ('--fast: --encode-dtype bfloat16', slow_bfloat16('--fast')):
        if line:
            MMLogger.get_current_instance().info(line)


def load_teacher(args: argparse.Namespace) -> 'TokenEncoder':
    """Load the teacher of --teacher, with --encode-dtype unless the teacher's config has a dtype of its own."""
    from mmengine.config import Config

    from usp_mm.config.lookup import find_config
    from usp_mm.models.repa import build_teacher

    cfg: dict[str, Any] = dict(name=args.teacher)
    if args.teacher.endswith('.py'):
        repa = Config.fromfile(find_config(args.teacher)).get('model', {}).get('repa')
        if not repa:
            raise ValueError(f"config '{args.teacher}' has no model.repa, whose teacher --teacher could take")
        found = repa.get('teacher', 'dinov2-b')
        cfg = dict(name=found) if isinstance(found, str) else dict(found)
    if args.teacher_path is not None:
        cfg['checkpoint' if 'backbone' in cfg else 'path'] = args.teacher_path
    return build_teacher({'dtype': ENCODE_DTYPES[args.encode_dtype], **cfg}, args.img_size)


def verify(args: argparse.Namespace) -> int:
    from usp_mm.datasets.latent_cache.verify import verify_cache

    bad = verify_cache(args.out, delete_bad=args.delete_bad)
    for name, problem in bad.items():
        print(f'BAD {name}: {problem}')
    if not bad:
        print(f'{args.out}: every file matches its checksum')
    elif args.delete_bad:
        print('bad files are deleted: run the same `write` command again to redo them')
    else:
        print('run `verify --delete-bad` and then the same `write` command to redo them')
    return int(bool(bad))


def info(args: argparse.Namespace) -> int:
    from rich.table import Table

    from usp_mm.datasets.latent_cache.verify import describe_cache

    table = Table('field', 'value', title=str(args.out))
    for key, value in describe_cache(args.out).items():
        table.add_row(key, f'{value:,}' if type(value) is int else str(value))
    table_console().print(table)
    return 0


def main() -> int:
    args = parse_args()
    from mmengine.logging import MMLogger

    MMLogger.get_instance('cache_latents')
    return dict(write=write, verify=verify, info=info, **{'import': import_})[args.command](args)
