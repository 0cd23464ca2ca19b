"""Segmentation in mmseg: importing this module registers its types, and needs mmseg."""

from .datasets import ADE20KFolder, DemoScenes
from .segmentor import USPSegmentor

__all__ = ['ADE20KFolder', 'DemoScenes', 'USPSegmentor']
