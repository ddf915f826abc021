"""Figures: one style sheet, one function a kind of picture; datasets in, no solver known."""

from .following import following_figure as following_figure
from .region import region_figure as region_figure
from .style import COLUMN as COLUMN
from .style import OKABE_ITO as OKABE_ITO
from .style import PAGE as PAGE
from .style import save_figure as save_figure
from .style import style as style
