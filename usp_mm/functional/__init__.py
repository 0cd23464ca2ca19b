"""Pure torch: the maths of the paper, importable without any OpenMMLab package."""
