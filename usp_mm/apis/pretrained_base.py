"""The common base of encoders and generators: their device, and saving, publishing and loading with the hub."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import ModelHubMixin
from PIL import Image
from torch import nn

from .model_folder import write_model_folder
from .sources import Source


class Pretrained(ModelHubMixin, library_name='usp_mm', repo_url='https://arxiv.org/abs/2503.06132', tags=['usp']):
    """A trained model in eval mode.

    Attributes:
        model: The network with its VAE, a module of `usp_mm.models`.
        source: Its config and what else is known of it.
    """

    model: Any
    source: Source

    def __new__(cls, *args: Any, **kwargs: Any) -> 'Pretrained':
        """Skip the mixin's config.json, for which it would copy all arguments."""
        return object.__new__(cls)

    def __init__(self, model: nn.Module, source: Source) -> None:
        self.model, self.source = model, source

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.model).__name__} of '{self.source.where}', {self.device})"

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> 'Pretrained':
        """Move the model to a device."""
        self.model.to(device)
        return self

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, in the order of their labels; None if unknown."""
        return self.source.classes

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> 'Pretrained':
        """Call `usp_mm.from_pretrained` and check that the model is of this class.

        Raises:
            ValueError: The model is of the other class.
        """
        from .pretrained import from_pretrained

        found = from_pretrained(pretrained_model_name_or_path, **kwargs)
        if not isinstance(found, cls):
            raise ValueError(f"'{pretrained_model_name_or_path}' is of another kind, {found!r}: use usp_mm.from_pretrained")
        return found

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        numbers: Mapping[str, Any] | None = None,
        picture: str | Path | Image.Image | None = None,
        license: str | None = None,
        include_vae: bool | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write a model folder, completely or not at all, and publish it on request.

        Args:
            save_directory: A folder that does not exist or is empty.
            repo_id: Id on the hub; by default the folder's name.
            push_to_hub: Whether to publish the folder, with further arguments for `push_to_hub`.
            numbers, picture, license, include_vae: See `usp_mm.apis.model_folder.write_model_folder`.

        Returns:
            The URL of the commit if the folder was published.

        Raises:
            FileExistsError: The folder is not empty.
            ValueError: A part of the model cannot be written.
        """
        out = Path(save_directory)
        if push_to_hub_kwargs and not push_to_hub:
            raise ValueError(f'{", ".join(push_to_hub_kwargs)}: only for publishing, which needs push_to_hub=True')
        write_model_folder(
            out, self.source, self.model, name=repo_id, numbers=numbers, picture=picture, license=license,
            include_vae=include_vae,
        )  # fmt: skip
        return self._upload(out, repo_id or out.name, **push_to_hub_kwargs) if push_to_hub else None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = 'Upload a model of usp_mm',
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        **card: Any,
    ) -> str:
        """Publish the model, with arguments of huggingface_hub and those of `save_pretrained` for the card.

        Returns:
            The URL of the commit.
        """
        with TemporaryDirectory() as folder:
            out = Path(folder, repo_id.split('/')[-1])
            self.save_pretrained(out, repo_id=repo_id, **card)
            return self._upload(out, repo_id, commit_message, private, token, branch, create_pr)

    def _upload(
        self,
        folder: Path,
        repo_id: str,
        commit_message: str = 'Upload a model of usp_mm',
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        return str(
            api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=commit_message, revision=branch, create_pr=create_pr
            )
        )
