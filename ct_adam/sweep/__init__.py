"""Maps over hyperparameters, labelled and on disk."""

from . import axes as axes
from .following import FollowConfig as FollowConfig
from .following import follow as follow
from .grid import Grid as Grid
from .opened import open as open
from .panels import PANELS as PANELS
from .panels import SIZES as SIZES
from .panels import RegionConfig as RegionConfig
from .refine import Refine as Refine
from .refine import boundary as boundary
from .region import SIDES as SIDES
from .region import region as region
from .store import check_replaceable as check_replaceable
from .store import keep_earlier as keep_earlier
from .store import read_tree as read_tree
from .store import writable_folder as writable_folder
from .store import write_dataset as write_dataset
from .store import write_tree as write_tree
from .summary import describe as describe
from .summary import describe_following as describe_following
from .summary import panel_summary as panel_summary
from .summary import region_summary as region_summary
from .summary import sides_agreement as sides_agreement
from .sweep import Sweep as Sweep
