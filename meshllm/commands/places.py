"""Distance and direction between two positions, no finer than they were heard. Pure."""

import math
from dataclasses import dataclass
from typing import Final

from meshllm.records import Latest

EARTH_M: Final = 6_371_000.0
DEGREE_M: Final = 111_195.0  #: metres in a degree of latitude
UNIT_M: Final = DEGREE_M * 1e-7  #: the wire's integer step
FINEST_M: Final = 10.0  #: no finer than what a hand-held receiver knows
_POINTS: Final = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")


@dataclass(frozen=True, slots=True)
class Place:
    """A position in degrees, and how far the truth may be from it."""

    latitude: float
    longitude: float
    error_m: float = FINEST_M


def place_of(latest: Latest) -> Place | None:
    """Read a position; None where none was heard.

    A radio that hides its position clears the low bits of both integers and sets the highest of
    these, so it says the middle of its square: the zeros at the end tell how large that is.
    """
    if latest.latitude is None or latest.longitude is None:
        return None
    wire = (round(latest.latitude * 1e7), round(latest.longitude * 1e7))
    half_step = min((number & -number for number in wire if number), default=1)
    return Place(latest.latitude, latest.longitude, max(FINEST_M, half_step * UNIT_M))


def direction(origin: Place, target: Place) -> str:
    """Say where one place lies from another, such as "2.3 km NE"."""
    metres = distance_m(origin, target)
    error_m = max(origin.error_m, target.error_m)
    if metres <= error_m:
        return f"within {length(error_m, error_m)}"
    return f"{length(metres, error_m)} {_compass(origin, target)}"


def length(metres: float, error_m: float) -> str:
    """Write a distance, rounded to what is known."""
    if error_m >= 500:
        return f"about {max(1, round(metres / 1000))} km"
    if metres < 1000:
        step = 10 if error_m < 50 else 100
        return f"{max(step, round(metres / step) * step)} m"
    return f"{metres / 1000:.1f} km" if metres < 100_000 else f"{round(metres / 1000)} km"


def coordinates(place: Place) -> str:
    """Write a position with as many decimals as it deserves."""
    decimals = min(5, max(1, round(math.log10(DEGREE_M / place.error_m)) + 1))
    text = f"{place.latitude:.{decimals}f}, {place.longitude:.{decimals}f}"
    return f"{text} (within {length(place.error_m, place.error_m)})" if place.error_m > 50 else text


def distance_m(first: Place, second: Place) -> float:
    """Great-circle distance."""
    lat1, lat2 = math.radians(first.latitude), math.radians(second.latitude)
    dlat = lat2 - lat1
    dlon = math.radians(second.longitude - first.longitude)
    chord = math.sin(dlat / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin(dlon / 2) ** 2
    return 2 * EARTH_M * math.asin(min(1.0, math.sqrt(chord)))


def _compass(origin: Place, target: Place) -> str:
    lat1, lat2 = math.radians(origin.latitude), math.radians(target.latitude)
    dlon = math.radians(target.longitude - origin.longitude)
    east = math.sin(dlon) * math.cos(lat2)
    north = math.cos(lat1) * math.sin(lat2) - math.sin(lat1) * math.cos(lat2) * math.cos(dlon)
    return _POINTS[round(math.degrees(math.atan2(east, north)) / 45) % 8]
