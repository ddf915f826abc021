"""One page of stability maps that one can touch, from stores on disk."""

from .document import document as document
from .gallery import Entry as Entry
from .gallery import read_gallery as read_gallery
from .growing import GrowingStores as GrowingStores
from .maps import Map as Map
from .maps import read_maps as read_maps
from .page import render as render
from .trajectories import Trajectories as Trajectories
from .trajectories import coarse_trajectories as coarse_trajectories
