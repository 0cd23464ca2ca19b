"""What `mmengine.hub.get_model` calls in every package, as PACKAGE.utils; this one's types are registered on import."""

__all__ = ['register_all_modules']


def register_all_modules(init_default_scope: bool = True) -> None:
    """Do nothing: `import usp_mm` has already registered where this package's types are."""
