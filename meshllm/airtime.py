"""Time on air and the retransmission timer of each modem preset. Pure; knows no radio and no clock.

Sources: Semtech's LoRa time-on-air formula with the firmware's settings (16 preamble symbols,
explicit header, CRC); preset table, slot time and retransmission timer as in Meshtastic firmware
2.7 (MeshRadio.h, RadioInterface.cpp). Coding rates are the denominators 5 to 8 of 4/5 to 4/8.
"""

import math
from dataclasses import dataclass
from typing import Final

HEADER_BYTES: Final = 16  #: the unencrypted radio header in front of every packet
PKI_BYTES: Final = 12  #: authentication tag and extra nonce of an encrypted direct message
MAX_FRAME_BYTES: Final = 255  #: more than this the radio chip cannot send
PREAMBLE_SYMBOLS: Final = 16 + 4.25
LOW_RATE_SYMBOL_S: Final = 0.016  #: symbols longer than this use the low data rate encoding
CONTENTION_MIN: Final = 3
CONTENTION_MAX: Final = 8
PROCESSING_S: Final = 4.5  #: what the firmware allows the other side for decoding and answering
TRANSMISSIONS: Final = 3  #: first sending and two repeats, then MAX_RETRANSMIT


@dataclass(frozen=True, slots=True)
class Preset:
    """Modem settings of one preset."""

    bandwidth_khz: float
    spreading_factor: int
    coding_rate: int

    @property
    def symbol_s(self) -> float:
        """Length of one LoRa symbol."""
        return (1 << self.spreading_factor) / (self.bandwidth_khz * 1000)

    @property
    def slot_s(self) -> float:
        """One contention slot, cut to whole milliseconds as the firmware does."""
        return math.floor(2500 * self.symbol_s + 7.6) / 1000


PRESETS: Final[dict[str, Preset]] = {
    "SHORT_TURBO": Preset(500, 7, 5),
    "SHORT_FAST": Preset(250, 7, 5),
    "SHORT_SLOW": Preset(250, 8, 5),
    "MEDIUM_TURBO": Preset(500, 9, 5),
    "MEDIUM_FAST": Preset(250, 9, 5),
    "MEDIUM_SLOW": Preset(250, 10, 5),
    "LONG_TURBO": Preset(500, 11, 8),
    "LONG_FAST": Preset(250, 11, 5),
    "LONG_MODERATE": Preset(125, 11, 8),
    "LONG_SLOW": Preset(125, 12, 8),
    "LITE_FAST": Preset(125, 9, 5),
    "LITE_SLOW": Preset(125, 10, 5),
    "NARROW_FAST": Preset(62.5, 7, 6),
    "NARROW_SLOW": Preset(62.5, 8, 6),
    "TINY_FAST": Preset(15.6, 7, 5),
    "TINY_SLOW": Preset(15.6, 8, 6),
}


def data_bytes(
    payload_bytes: int, *, port: int = 1, reply: bool = False, emoji: bool = False
) -> int:
    """Size of the encoded inner message around a payload, with the bitfield the firmware adds."""
    size = 2 if port < 128 else 3
    size += payload_bytes + (2 if payload_bytes < 128 else 3)
    size += 5 * reply + 5 * emoji
    return size + 2


def frame_bytes(encoded_bytes: int, *, pki: bool = False) -> int:
    """Size of the whole radio frame around an encoded inner message."""
    return HEADER_BYTES + encoded_bytes + PKI_BYTES * pki


def frame_airtime_s(size_bytes: int, preset: str) -> float:
    """Time on air of a frame of that many bytes, radio header included."""
    modem = PRESETS[preset]
    low_rate = modem.symbol_s > LOW_RATE_SYMBOL_S
    bits = 8 * size_bytes - 4 * modem.spreading_factor + 28 + 16
    blocks = math.ceil(bits / (4 * (modem.spreading_factor - 2 * low_rate)))
    symbols = PREAMBLE_SYMBOLS + 8 + max(blocks * modem.coding_rate, 0)
    return symbols * modem.symbol_s


def airtime_s(payload_bytes: int, preset: str, *, pki: bool = False) -> float:
    """Time on air of one transmission of a text of that many bytes."""
    return frame_airtime_s(frame_bytes(data_bytes(payload_bytes), pki=pki), preset)


def contention_window(channel_utilisation: float) -> int:
    """Exponent of the random back-off before sending, for a utilisation from 0 to 1."""
    share = min(max(channel_utilisation, 0.0), 1.0)
    return CONTENTION_MIN + int(share * (CONTENTION_MAX - CONTENTION_MIN))


def frame_retransmit_s(size_bytes: int, preset: str, *, channel_utilisation: float = 0.0) -> float:
    """Wait between two transmissions of a frame of that many bytes, radio header included."""
    window = contention_window(channel_utilisation)
    slots = (1 << window) + 2 * CONTENTION_MAX + (1 << (CONTENTION_MAX + CONTENTION_MIN) // 2)
    return 2 * frame_airtime_s(size_bytes, preset) + slots * PRESETS[preset].slot_s + PROCESSING_S


def retransmit_timer_s(
    payload_bytes: int, preset: str, *, pki: bool = False, channel_utilisation: float = 0.0
) -> float:
    """Wait between two transmissions of a text; the firmware gives up after three of them."""
    size = frame_bytes(data_bytes(payload_bytes), pki=pki)
    return frame_retransmit_s(size, preset, channel_utilisation=channel_utilisation)
