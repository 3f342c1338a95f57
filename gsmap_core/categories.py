"""The categories of map elements: ids, names, shape and colour, fixed once for everybody.

Whether one particular element is closed is a flag of the element, not of its category.
"""

from dataclasses import dataclass

from gsmap_core.errors import ConfigError


@dataclass(frozen=True)
class Category:
    """One category of map elements.

    Args:
        id: number in messages and model outputs.
        name: name in files and reports.
        is_area: True if a closed element of it encloses a surface (a crossing), False for lines.
        colour_rgb: display colour, 0 to 255, the same in RViz, plots and overlays.
        is_directed: True if the order of the vertices means something (the way cars drive).
    """

    id: int
    name: str
    is_area: bool
    colour_rgb: tuple[int, int, int]
    is_directed: bool = False


DIVIDER = Category(0, 'divider', False, (255, 159, 28))
PED_CROSSING = Category(1, 'ped_crossing', True, (46, 134, 222))
BOUNDARY = Category(2, 'boundary', False, (38, 166, 91))
CENTERLINE = Category(3, 'centerline', False, (155, 89, 182), is_directed=True)

CATEGORIES: tuple[Category, ...] = (DIVIDER, PED_CROSSING, BOUNDARY, CENTERLINE)
#: The three categories that the papers report.
PAPER_CATEGORIES: tuple[str, ...] = ('divider', 'ped_crossing', 'boundary')
_BY_NAME = {category.name: category for category in CATEGORIES}


def category_by_name(name: str) -> Category:
    """Return the category called `name`.

    Raises:
        ConfigError: no category has that name.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise ConfigError(
            f"category '{name}': unknown; expected one of {', '.join(_BY_NAME)}"
        ) from None


def category_by_id(category_id: int) -> Category:
    """Return the category with number `category_id`.

    Raises:
        ConfigError: no category has that number.
    """
    if 0 <= category_id < len(CATEGORIES):
        return CATEGORIES[category_id]
    raise ConfigError(f'category id {category_id}: unknown; expected 0 to {len(CATEGORIES) - 1}')
