"""Write demo data: handwritten digits and scenes of them, crops of photographs, emoji, or scenes of emoji with boxes and masks.

usp demo-data data/demo
usp demo-data data/crops --kind crops
usp demo-data data/emoji --kind emoji
usp demo-data data/scenes --kind scenes
"""

import argparse
from collections.abc import Callable

from usp_mm.config.arguments import ToolParser
from usp_mm.config.options import DemoCrops, DemoData, DemoEmoji, DemoScenes

KINDS = {'digits': DemoData, 'crops': DemoCrops, 'emoji': DemoEmoji, 'scenes': DemoScenes}


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('out', help='folder to make')
    parser.add_argument('--kind', choices=list(KINDS), default='digits', help='default: %(default)s')
    numbers = {kind: vars(config()) for kind, config in KINDS.items()}
    for name in dict.fromkeys(name for defaults in numbers.values() for name in defaults):
        known = {kind: defaults[name] for kind, defaults in numbers.items() if name in defaults}
        switch = any(isinstance(value, bool) for value in known.values())
        kwargs = dict(action=argparse.BooleanOptionalAction) if switch else dict(type=int)
        text = 'default for ' + ', '.join(f'{kind}: {value}' for kind, value in known.items())
        parser.add_argument(f'--{name.replace("_", "-")}', default=argparse.SUPPRESS, help=text, **kwargs)
    args = parser.parse_args()
    for name in vars(args).keys() - {'out', 'kind'} - numbers[args.kind].keys():
        parser.error(f'--{name.replace("_", "-")} is not an option of --kind {args.kind}')
    return args


def main() -> None:
    args = vars(parse_args())
    from usp_mm.datasets.demo import make_demo_data
    from usp_mm.datasets.demo_crops import make_demo_crops
    from usp_mm.datasets.demo_emoji import make_demo_emoji
    from usp_mm.datasets.demo_scenes import make_demo_scenes

    out, kind = args.pop('out'), args.pop('kind')
    makers: dict[type, Callable[..., bool]]
    makers = {DemoData: make_demo_data, DemoCrops: make_demo_crops, DemoEmoji: make_demo_emoji, DemoScenes: make_demo_scenes}
    written = makers[KINDS[kind]](out, KINDS[kind](**args))
    print(f'{out}: written' if written else f'{out}: already there')
