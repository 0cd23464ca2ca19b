"""The tab that hides patches of a picture and restores them."""

from collections.abc import Mapping

import gradio as gr
import numpy as np
from PIL import Image

from usp_mm.apis import Encoder
from usp_mm.apis.images_in import cropped, square_crop

from .event_handlers import ONE_AT_A_TIME, in_turn, seed_number
from .model_choice import choose_model
from .pictures import enlarged, read_upload, result_box, upload_box

LABELS = ('Picture', 'Masked', 'Restored', 'VAE alone')
_GREY = 128


def restore_picture(encoder: Encoder, path: str | None, mask_ratio: float, seed: float | None) -> list[Image.Image]:
    """Restore an uploaded picture.

    Returns:
        The picture as the model gets it, with the hidden patches grey, as it is restored, and as the VAE alone reproduces it.

    Raises:
        ValueError: There is no picture, it can't be decoded, or a setting is out of range.
    """
    image, number = read_upload(path), seed_number(seed)
    restored, mask, vae = encoder.restore(image, mask_ratio=mask_ratio, seed=number)
    picture = Image.fromarray(cropped(image, square_crop(encoder.img_size)).permute(1, 2, 0).numpy())
    masked = Image.composite(Image.new('RGB', picture.size, (_GREY,) * 3), picture, mask)
    return [enlarged(one) for one in (picture, masked, restored, vae)]


def restore_tab(encoders: Mapping[str, Encoder]) -> None:
    """Lay out the tab inside the current `gr.Blocks`."""

    @in_turn
    def restore(model: str, path: str | None, mask_ratio: float, seed: float | None) -> list[Image.Image] | list[None]:
        return restore_picture(encoders[model], path, mask_ratio, seed) if path else [None] * len(LABELS)

    @in_turn
    def restore_again(model: str, path: str | None, mask_ratio: float, seed: float | None) -> list:
        number = seed_number(seed) + 1
        return [number, *restore_picture(encoders[model], path, mask_ratio, number)]

    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            model = choose_model(encoders)
            upload = upload_box()
            mask_ratio = gr.Slider(
                0.05,
                0.95,
                _ratio(encoders),
                step=0.05,
                label='mask_ratio',
                info='share of hidden patches',
                elem_id='mask-ratio',
            )
            seed = gr.Number(
                0, label='seed', info='of the mask; a click on the masked picture takes the next one', precision=0, minimum=0
            )
            another = gr.Button('Another mask', variant='primary')
        with gr.Column(scale=3, min_width=320), gr.Row():
            results = [result_box(label, elem_id=f'restore-{i}', buttons=[]) for i, label in enumerate(LABELS)]
    settings = [model, upload, mask_ratio, seed]
    changes = [upload.change, mask_ratio.release, seed.submit, seed.blur, model.input]
    gr.on(changes, restore, settings, results, trigger_mode='always_last', **ONE_AT_A_TIME)
    gr.on([another.click, results[1].select], restore_again, settings, [seed, *results], trigger_mode='once', **ONE_AT_A_TIME)


def _ratio(encoders: Mapping[str, Encoder]) -> float:
    return float(np.clip(next(iter(encoders.values())).model.mask_ratio, 0.05, 0.95))
