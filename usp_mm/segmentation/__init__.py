"""Segmentation with mmseg. Importing this module registers its types and requires mmseg."""

from .datasets import ADE20KFolder, DemoScenes
from .segmentor import USPSegmentor
from .visualizer import NamedSegVisualizer

__all__ = ['ADE20KFolder', 'DemoScenes', 'NamedSegVisualizer', 'USPSegmentor']
