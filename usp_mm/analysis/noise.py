"""Classifiers under noise (robustness runs of USP's appendix A): on images, and on latents."""

from mmengine.config import Config
from mmengine.runner import Runner

from usp_mm.datasets import NOISE_SEVERITIES
from usp_mm.engine.hooks import unwrapped

NUM_TIMESTEPS = 1000


def add_image_noise(cfg: Config, severity: int) -> None:
    """Let the test data carry ImageNet-C's Gaussian noise, put before the pipeline's last step, which packs.

    Raises:
        ValueError: another severity than 1 to 5, a config without a classifier, or whose test data is no images.
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
    """Let the data preprocessor diffuse every latent by `timestep` steps of DDPM's 1000-step linear schedule (0: clean).

    Raises:
        ValueError: a number of steps that there is not, or a config without a classifier on latents.
    """
    check_timestep(timestep)
    _check_classifier(cfg)
    cfg.model.data_preprocessor.noise = dict(timestep=timestep)


def check_severity(severity: int) -> None:
    """ValueError unless it is one of ImageNet-C's."""
    if severity not in range(1, len(NOISE_SEVERITIES) + 1):
        raise ValueError(f'image noise of severity {severity}: use 1 to {len(NOISE_SEVERITIES)}')


def check_timestep(timestep: int) -> None:
    """ValueError unless it is a number of steps of the schedule."""
    if timestep not in range(NUM_TIMESTEPS + 1):
        raise ValueError(f'latent noise of {timestep} of {NUM_TIMESTEPS} steps: use 0 (clean) to {NUM_TIMESTEPS}')


def evaluate_under_noise(runner: Runner, severity: int | None = None, timestep: int | None = None) -> dict[str, float]:
    """Metrics of a runner's test loop at one level of noise; model, VAE and weights stay as they are.

    Args:
        runner: of the clean config.
        severity, timestep: of the image noise and the latent noise, None for none.
    """
    cfg = Config(runner.cfg.to_dict())
    if severity is not None:
        add_image_noise(cfg, severity)
    loader = runner.build_dataloader(cfg.test_dataloader, seed=runner.seed)
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
