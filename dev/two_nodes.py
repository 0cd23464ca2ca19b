"""What `dev/two_nodes.sh` runs once the network is there: equal results on two nodes, and what happens when one fails."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import usp_mm  # noqa: F401  (before torch)

# isort: split

import numpy as np
import torch

from usp_mm.fileio.atomic import sha256

ROOT = Path(__file__).resolve().parent.parent
PRETRAIN = """_base_ = ['{root}/configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py']
model = dict(data_preprocessor=dict(vae_path='{folder}/vae'))
train_dataloader = dict(batch_size=16, num_workers=0, persistent_workers=False, dataset=dict(data_root='{folder}/cache'))
train_cfg = dict(max_epochs={epochs})
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=100, max_keep_ckpts=1), restoration=dict(interval=10000))
"""
SIT = """_base_ = ['{root}/configs/sit/sit-tiny-p2_1xb64-2k_digits.py']
model = dict(data_preprocessor=dict(vae_path='{folder}/vae'), sampler=dict(num_steps=4))
train_dataloader = dict(batch_size=16, num_workers=0, persistent_workers=False, dataset=dict(data_root='{folder}/cache'))
train_cfg = dict(max_iters={iters}, val_interval=1000)
val_cfg = val_dataloader = val_evaluator = None
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval={iters}, save_best=None))
"""
#: Of the heartbeat in runs that are disturbed, and of waiting for a node that never starts, seconds, unless set outside.
LIMITS = {name: os.environ.get(name, value) for name, value in (('USP_MISSING_TOLD', '10'), ('USP_MISSING_LIMIT', '60'))}
#: A slow cable: 50 ms late, or 4 Mbit/s where the kernel has no netem.
SLOW = (('netem', 'delay', '50ms'), ('tbf', 'rate', '4mbit', 'burst', '16kb', 'latency', '400ms'))


class Nodes:
    """Two nodes that run one command together, or one node with as many processes.

    Args:
        folder: Of configs, logs and results.
        names: The network namespaces.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names = folder, names

    def environment(self, **more: str) -> dict[str, str]:
        path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
        return {**os.environ, 'OMP_NUM_THREADS': '1', 'PATH': path, 'PYTHONPATH': str(ROOT), **more}

    def start(self, node: int, case: str, *words: object, **env: str) -> subprocess.Popen:
        """Start a node's part, `words` for dist_train.sh or, if they begin with a .py file, for torchrun."""
        place = dict(NNODES='2', NODE_RANK=str(node), MASTER_ADDR='10.77.0.1', GLOO_SOCKET_IFNAME='veth0')
        at = ['--nnodes=2', f'--node_rank={node}', '--master_addr=10.77.0.1', '--master_port=29500', '--nproc_per_node=1']
        command = ['ip', 'netns', 'exec', self.names[node], *launched(words, 1, at)]
        log = (self.folder / f'{case}-node{node}.log').open('w')
        return subprocess.Popen(command, env=self.environment(**place, **env), stdout=log, stderr=subprocess.STDOUT)

    def both(self, case: str, *words: object, **env: str) -> tuple[list[int], float]:
        began = time.time()
        nodes = [self.start(node, case, *words, **env) for node in (0, 1)]
        return [node.wait() for node in nodes], time.time() - began

    def one(self, case: str, *words: object) -> None:
        with (self.folder / f'{case}-one.log').open('w') as log:
            command = launched(words, 2, ['--standalone', '--nproc_per_node=2'])
            subprocess.run(command, env=self.environment(), stdout=log, stderr=subprocess.STDOUT, check=True)

    def last_line(self, case: str, node: int) -> str:
        lines = (self.folder / f'{case}-node{node}.log').read_text(errors='replace').splitlines()
        return next((line for line in reversed(lines) if line.strip()), '')

    def told(self, case: str) -> list[str]:
        """The heartbeat's lines of both nodes."""
        texts = [(self.folder / f'{case}-node{node}.log').read_text(errors='replace') for node in (0, 1)]
        words = ('no sign of', 'has not reached', 'the other processes wait')
        return [
            f'node {node}: {line}'
            for node, text in enumerate(texts)
            for line in text.splitlines()
            if any(w in line for w in words)
        ]

    def wait_for(self, case: str, text: str, node: subprocess.Popen) -> None:
        """Wait until the text is in the log of node 0."""
        log = self.folder / f'{case}-node0.log'
        while text not in log.read_text(errors='replace'):
            if node.poll() is not None:
                raise RuntimeError(f'{case}: node 0 ended too soon, see {log}')
            time.sleep(0.5)

    def cable(self, up: bool) -> None:
        subprocess.run(['ip', '-n', self.names[1], 'link', 'set', 'veth0', 'up' if up else 'down'], check=True)

    def kill(self, node: int) -> None:
        """Kill every process of a node at once."""
        found = subprocess.run(['ip', 'netns', 'pids', self.names[node]], capture_output=True, text=True, check=True)
        for pid in found.stdout.split():
            os.kill(int(pid), signal.SIGKILL)


def launched(words: tuple[object, ...], processes: int, options: list[str]) -> list[str]:
    first, *others = map(str, words)
    if first.endswith('_tool.py') or '/tools/' in first:
        return [sys.executable, '-m', 'usp_mm.runtime.torchrun', *options, '--', first, *others]
    return ['bash', str(ROOT / 'tools/dist_train.sh'), first, str(processes), *others]


def prepare(folder: Path) -> None:
    from usp_mm.datasets.demo import DemoData, make_demo_data
    from usp_mm.vaes.tiny import make_tiny_vae, save_vae

    make_demo_data(folder / 'data', DemoData(train_digits=320, val_digits=20, train_scenes=1, val_scenes=1))
    save_vae(make_tiny_vae(scaling_factor=0.5), folder / 'vae')
    subprocess.run(
        [sys.executable, *map(str, writing(folder, 'cache'))], check=True, env={**os.environ, 'PYTHONPATH': str(ROOT)}
    )


def writing(folder: Path, name: str) -> list[object]:
    options = ['--vae', 'tiny', '--vae-path', folder / 'vae', '--img-size', 64, '--workers', 0, '--shard-size', 40]
    return [ROOT / 'tools/cache_latents.py', 'write', folder / 'data/imagenet/train', folder / name, *options]


def config(folder: Path, name: str, text: str, **values: int) -> Path:
    path = folder / f'{name}.py'
    path.write_text(text.format(root=ROOT, folder=folder, **values))
    return path


def difference(folder: Path, one: str, two: str, file: str) -> float:
    """Largest difference of the weights of two checkpoints."""
    weights = [torch.load(folder / name / file, map_location='cpu', weights_only=False)['state_dict'] for name in (one, two)]
    return max(float((weights[0][name].float() - weights[1][name].float()).abs().max()) for name in weights[0])


def trained(nodes: Nodes, case: str, cfg: Path, file: str) -> str:
    nodes.one(case, cfg, '--work-dir', nodes.folder / f'{case}-1')
    codes, seconds = nodes.both(case, cfg, '--work-dir', nodes.folder / f'{case}-2')
    found = difference(nodes.folder, f'{case}-1', f'{case}-2', file)
    return f'exit codes {codes}, {seconds:.0f} s, largest difference of a weight {found}'


def pretrain(nodes: Nodes) -> str:
    return trained(nodes, 'pretrain', config(nodes.folder, 'pretrain', PRETRAIN, epochs=3), 'epoch_3.pth')


def sit(nodes: Nodes) -> str:
    return trained(nodes, 'sit', config(nodes.folder, 'sit', SIT, iters=12), 'iter_12.pth')


def cache(nodes: Nodes) -> str:
    shutil.rmtree(nodes.folder / 'cache-two', ignore_errors=True)
    codes, _ = nodes.both('cache', *writing(nodes.folder, 'cache-two'))
    files = [path.name for path in (nodes.folder / 'cache').glob('*.npy')]
    same = sum(sha256(nodes.folder / 'cache' / name) == sha256(nodes.folder / 'cache-two' / name) for name in files)
    return f'exit codes {codes}, {same} of {len(files)} arrays have the same bytes'


def sample(nodes: Nodes) -> str:
    words = [
        ROOT / 'tools/sample.py',
        nodes.folder / 'sit.py',
        nodes.folder / 'sit-1/iter_12.pth',
        '--num',
        '24',
        '--batch-size',
        '4',
    ]
    for left in nodes.folder.glob('*.npz*'):
        left.unlink()
    nodes.one('sample', *words, '--out', nodes.folder / 'one.npz')
    codes, _ = nodes.both('sample', *words, '--out', nodes.folder / 'two.npz')
    one, two = (np.load(nodes.folder / name)['arr_0'] for name in ('one.npz', 'two.npz'))
    return f'exit codes {codes}, {int((one != two).sum())} of {one.size} bytes differ'


def disturbed(nodes: Nodes, case: str, disturb: Callable[[], None], epochs: int = 400) -> str:
    """A pretraining that is disturbed after its first epochs: exit codes, seconds from then on, last lines."""
    cfg = config(nodes.folder, case, PRETRAIN, epochs=epochs)
    running = [nodes.start(node, case, cfg, '--work-dir', nodes.folder / case, **LIMITS) for node in (0, 1)]
    nodes.wait_for(case, '[3][ 1/10]', running[0])
    began = time.time()
    disturb()
    ends, codes = [0.0, 0.0], [0, 0]
    for node in (0, 1):
        codes[node] = running[node].wait()
        ends[node] = time.time() - began
    lines = [f'  node {node}: {nodes.last_line(case, node)}' for node in (0, 1)]
    told = [f'  {line}' for line in nodes.told(case)]
    return '\n'.join([f'exit codes {codes} after at most {ends[0]:.0f} and {ends[1]:.0f} s', *told, '  last lines:', *lines])


def slow(nodes: Nodes) -> str:
    for kind in SLOW:
        done = subprocess.run(
            ['ip', 'netns', 'exec', nodes.names[1], 'tc', 'qdisc', 'add', 'dev', 'veth0', 'root', *kind], capture_output=True
        )
        if done.returncode == 0:
            break
    cfg = config(nodes.folder, 'slow', PRETRAIN, epochs=3)
    codes, seconds = nodes.both('slow', cfg, '--work-dir', nodes.folder / 'slow', **LIMITS)
    subprocess.run(['ip', 'netns', 'exec', nodes.names[1], 'tc', 'qdisc', 'del', 'dev', 'veth0', 'root'], check=True)
    found = difference(nodes.folder, 'pretrain-1', 'slow', 'epoch_3.pth')
    return f'{" ".join(kind)}: exit codes {codes}, {seconds:.0f} s, largest difference of a weight {found}'


def cut(nodes: Nodes) -> str:
    def for_30_seconds() -> None:
        nodes.cable(up=False)
        time.sleep(30)
        nodes.cable(up=True)

    told = disturbed(nodes, 'cut', for_30_seconds, epochs=20)
    nodes.one('cut', nodes.folder / 'cut.py', '--work-dir', nodes.folder / 'cut-1')
    return f'{told}\n  largest difference of a weight {difference(nodes.folder, "cut-1", "cut", "epoch_20.pth")}'


def killed(nodes: Nodes) -> str:
    return disturbed(nodes, 'killed', lambda: nodes.kill(1))


def killed0(nodes: Nodes) -> str:
    return disturbed(nodes, 'killed0', lambda: nodes.kill(0))


def gone(nodes: Nodes) -> str:
    told = disturbed(nodes, 'gone', lambda: nodes.cable(up=False))
    nodes.cable(up=True)
    return told


def absent(nodes: Nodes) -> str:
    cfg = config(nodes.folder, 'absent', PRETRAIN, epochs=3)
    told = []
    for node in (1, 0):
        began = time.time()
        code = nodes.start(node, 'absent', cfg, '--work-dir', nodes.folder / 'absent', **LIMITS).wait()
        log = (nodes.folder / f'absent-node{node}.log').read_text(errors='replace')
        told.append(f'  node {node} alone: exit code {code} after {time.time() - began:.0f} s, all that it said:')
        told += [f'    {line}' for line in log.splitlines() if line.strip()]
    return '\n'.join(['', *told])


CASES = {case.__name__: case for case in (pretrain, sit, cache, sample, slow, cut, killed, killed0, gone, absent)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--nodes', nargs=2, metavar='NAMESPACE', required=True)
    parser.add_argument(
        '--cases', nargs='*', choices=[*CASES, []], metavar='CASE', help=f'of {", ".join(CASES)} (default: all)'
    )
    args = parser.parse_args()
    folder = args.folder.resolve()
    if not args.cases:
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / 'cache').is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder)
    nodes = Nodes(folder, args.nodes)
    for name in args.cases or CASES:
        for left in () if name == 'cache' else (folder / name, *folder.glob(f'{name}-[12]')):
            shutil.rmtree(left, ignore_errors=True)
        sys.stdout.write(f'{name}: {CASES[name](nodes)}\n')
        sys.stdout.flush()


if __name__ == '__main__':
    main()
