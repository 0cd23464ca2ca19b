"""Evaluate classifiers under noise on images or latents (robustness experiments of USP's appendix A)."""

from mmengine.config import Config
from mmengine.runner import Runner

from usp_mm.config.data_loaders import without_workers
from usp_mm.datasets import NOISE_SEVERITIES
from usp_mm.engine.runner_parts import unwrapped

NUM_TIMESTEPS = 1000


def add_image_noise(cfg: Config, severity: int) -> None:
    """Add ImageNet-C's Gaussian noise to the test data, before the last step of the pipeline, which packs the sample.

    Raises:
        ValueError: The severity is not 1 to 5, the config has no classifier, or its test data are not images.
    """
    check_severity(severity)
    _check_classifier(cfg)
    dataset = cfg.test_dataloader.dataset
    if not dataset.get('pipeline') or dataset.pipeline[-1].type != 'PackInputs':
        raise ValueError(
            f"image noise needs test images, but test_dataloader reads '{dataset.type}', which has no pipeline that ends in "
            "PackInputs: use a config whose test data is an ImageFolder with the VAE loaded, or latent noise ('--noise latent')"
        )
    noise = dict(type='GaussianNoise', severity=severity, to_uint8=True)  # as the paper's table
    dataset.pipeline = [*dataset.pipeline[:-1], noise, dataset.pipeline[-1]]


def add_latent_noise(cfg: Config, timestep: int) -> None:
    """Make the data preprocessor diffuse every latent by `timestep` steps of DDPM's 1000-step linear schedule (0: clean).

    Raises:
        ValueError: The number of steps is not in the schedule, or the config has no classifier on latents.
    """
    check_timestep(timestep)
    _check_classifier(cfg)
    cfg.model.data_preprocessor.noise = dict(timestep=timestep)


def check_severity(severity: int) -> None:
    """Raise ValueError unless the severity is one of ImageNet-C's."""
    if severity not in range(1, len(NOISE_SEVERITIES) + 1):
        raise ValueError(f'image noise of severity {severity}: use 1 to {len(NOISE_SEVERITIES)}')


def check_timestep(timestep: int) -> None:
    """Raise ValueError unless the timestep is in the schedule."""
    if timestep not in range(NUM_TIMESTEPS + 1):
        raise ValueError(f'latent noise of {timestep} of {NUM_TIMESTEPS} steps: use 0 (clean) to {NUM_TIMESTEPS}')


def evaluate_under_noise(runner: Runner, severity: int | None = None, timestep: int | None = None) -> dict[str, float]:
    """Metrics of a runner's test loop at one level of noise; model, VAE and weights are not changed.

    Args:
        runner: Runner of the config without noise.
        severity: Severity of the image noise; None for no image noise.
        timestep: Timestep of the latent noise; None for no latent noise.
    """
    cfg = Config(runner.cfg.to_dict())
    if severity is not None:
        add_image_noise(cfg, severity)
    loader = runner.build_dataloader(without_workers(cfg.test_dataloader), seed=runner.seed)
    runner.test_loop.dataloader = loader
    preprocessor = unwrapped(runner).data_preprocessor
    preprocessor.set_noise(None if timestep is None else dict(timestep=timestep))
    try:
        return runner.test()
    finally:
        preprocessor.set_noise(None)


def _check_classifier(cfg: Config) -> None:
    if cfg.model.type != 'USPClassifier':
        raise ValueError(f"noise needs the config of a classifier (model.type 'USPClassifier'), got '{cfg.model.type}'")
