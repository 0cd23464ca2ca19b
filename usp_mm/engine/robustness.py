"""Tests under noise, of any classifier's config."""

from mmengine.config import Config


def add_image_noise(cfg: Config, std: float) -> None:
    """Put `GaussianNoise` of this standard deviation last before the packing of the test pipeline.

    Raises:
        ValueError: the config is of no classifier, or tests on cached latents.
    """
    _check_classifier(cfg)
    pipeline = cfg.test_dataloader.dataset.get('pipeline')
    if not pipeline:
        raise ValueError(
            'image noise needs images, but the config tests on cached latents: test with test_dataloader.dataset of type '
            "'ImageFolder', or with noise on latents"
        )
    cfg.test_dataloader.dataset.pipeline = [*pipeline[:-1], dict(type='GaussianNoise', std=std), pipeline[-1]]


def add_latent_noise(cfg: Config, timestep: int) -> None:
    """Let the data preprocessor diffuse latents to this step of DDPM's 1000-step linear schedule.

    Raises:
        ValueError: the config is of no classifier, or there is no such step.
    """
    _check_classifier(cfg)
    if not 0 <= timestep < 1000:
        raise ValueError(f'timestep {timestep} of the latent noise must be from 0 to 999')
    cfg.model.data_preprocessor.noise = dict(timestep=timestep)


def _check_classifier(cfg: Config) -> None:
    if cfg.model.type != 'USPClassifier':
        raise ValueError(f'noise is for tests of a USPClassifier, the config has a {cfg.model.type}')
