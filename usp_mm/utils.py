"""What `mmengine.hub.get_model` calls in every package; this one's types are registered on import."""

__all__ = ['register_all_modules']


def register_all_modules(init_default_scope: bool = True) -> None:
    """Do nothing: `import usp_mm` has told the registries where this package's types are."""
