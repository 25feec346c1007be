"""`nodes`, `where`, `last` and `battery`: who is on the mesh, and what is known of one of them.

Every fact comes with its age. A position is told only where it was heard on the asker's channel or
the primary one, and so is what is measured from it.
"""

from collections.abc import Callable, Sequence
from typing import Final

from meshllm.commands import ages
from meshllm.commands.base import Command, Context
from meshllm.commands.names import Found, Person, find, is_id
from meshllm.commands.places import Place, coordinates, direction, place_of
from meshllm.commands.words import phrases
from meshllm.records import Latest
from meshllm.text import utf8_len

MAX_NAMED: Final = 5  #: people listed when a name may mean several
EXTERNAL_POWER: Final = 101  #: what the firmware sends as percent then
SAME_MOMENT_S: Final = 300.0  #: a signal this much older than the last packet is not its signal
DAY_S: Final = 24 * 3600.0
ME: Final = frozenset({"me", "i", "my", "mine", "myself", "yo", "ich", "я"})
YOU: Final = frozenset({"you", "librarian", "the librarian", "u"})


# What a person is called in a text


def _named(context: Context) -> Found:
    """Find whom the arguments mean: the asker, our radio, or somebody in the files."""
    name = " ".join(context.arguments)
    people = context.mesh.known_people()
    own = dict.fromkeys(ME, context.asked.sender_id) | dict.fromkeys(YOU, context.own_id)
    if name in own:
        return Found(tuple(p for p in people if p.node.node_id == own[name]), is_exact=True)
    return find(name, people)


def _applies_to_anybody(context: Context) -> bool:
    name = " ".join(context.arguments)
    return is_id(name) or name in ME | YOU or bool(_named(context).people)


def _applies_to_exact(context: Context) -> bool:
    name = " ".join(context.arguments)
    found = _named(context)
    return is_id(name) or name in ME | YOU or (bool(found.people) and found.is_exact)


def _of_one(tell: Callable[[Context, Person], str]) -> Callable[[Context], str]:
    """Make an answer about one person; where the name means several, or nobody, say that."""

    def answer(context: Context) -> str:
        people = _named(context).people
        if len(people) == 1:
            return tell(context, people[0])
        if not people:
            return "I have not heard that node."
        names = ", ".join(f"{p.label} ({p.node.node_id})" for p in people[:MAX_NAMED])
        more = f" and {len(people) - MAX_NAMED} more" if len(people) > MAX_NAMED else ""
        return f"Which one? {names}{more}"

    return answer


# Facts in words


def heard_text(context: Context, person: Person) -> str:
    """Say when somebody was heard."""
    return f"heard {context.ages.ago(person.heard_at)}" if person.heard_at else "never heard"


def signal_text(latest: Latest) -> str:
    """Say how well somebody was heard: hops, and the signal where that is their own."""
    if latest.hops:
        return f"{latest.hops} hop{'s' if latest.hops > 1 else ''}"
    parts = ["direct"] if latest.hops == 0 else []
    parts += [f"SNR {latest.snr_db:.4g}"] if latest.snr_db is not None else []
    return " ".join(parts)


def battery_text(latest: Latest) -> str:
    """Say what a battery has; "" where nothing was heard."""
    volts = "" if latest.voltage is None else f"{latest.voltage:.2f} V"
    if latest.battery is None:
        return volts
    if latest.battery >= EXTERNAL_POWER:
        return "on external power"
    return f"{latest.battery} %" + (f" ({volts})" if volts else "")


def position_text(context: Context, person: Person, people: Sequence[Person]) -> str:
    """Say where somebody is, as far as this asker may know; "" where that is nothing."""
    channels = context.mesh.channels_of(context.asked)
    place = _told_place(person, channels)
    if place is None:
        return ""
    origin, whose = _origin(context, person, people, channels)
    where = f"{direction(origin, place)} of {whose}" if origin else coordinates(place)
    return f"{where}, {context.ages.ago(person.latest.position_at)}"


def _told_place(person: Person, channels: frozenset[str]) -> Place | None:
    return place_of(person.latest) if person.latest.position_channel in channels else None


def _origin(
    context: Context, person: Person, people: Sequence[Person], channels: frozenset[str]
) -> tuple[Place | None, str]:
    """Find from where to measure. In a channel all can read the answer, so the same rule holds."""
    by_id = {p.node.node_id: p for p in people}
    for node_id, whose in ((context.asked.sender_id, "you"), (context.own_id, "my radio")):
        origin = by_id.get(node_id)
        if origin is None or node_id == person.node.node_id:
            continue
        place = _told_place(origin, channels)
        if place is not None:
            return place, whose
    return None, ""


# Answers


def _nodes(context: Context) -> str:
    """List who was heard, newest first, as many as fit one answer."""
    people = [
        person
        for person in context.mesh.people()
        if person.heard_at and person.node.node_id != context.own_id
    ]
    if not people:
        return "I have heard nobody yet."
    aged = [(context.ages.age_s(person.heard_at), person) for person in people]
    aged.sort(key=lambda entry: float("inf") if entry[0] is None else entry[0])
    today = sum(1 for age_s, _ in aged if age_s is not None and age_s <= DAY_S)
    head = f"{today} heard in 24 h. "
    items: list[str] = []
    for age_s, person in aged:
        item = _list_item(context, person, age_s)
        left = f"; {len(aged) - len(items)} more"
        if utf8_len(head + "; ".join([*items, item]) + left) > context.room_bytes:
            return head + "; ".join(items) + left
        items.append(item)
    return head + "; ".join(items)


def _list_item(context: Context, person: Person, age_s: float | None) -> str:
    when = "?" if age_s is None else ages.span(age_s)
    signal_age_s = context.ages.age_s(person.latest.signal_at)
    is_its_own = (
        age_s is not None and signal_age_s is not None and signal_age_s - age_s <= SAME_MOMENT_S
    )
    how = signal_text(person.latest) if is_its_own else ""
    return f"{person.label} {when}" + (f" {how}" if how else "")


def _where(context: Context, person: Person) -> str:
    told = position_text(context, person, context.mesh.people())
    if told:
        return f"{person.label}: {told}"
    return f"I have no position of {person.label} to tell here; {heard_text(context, person)}."


def _last(context: Context, person: Person) -> str:
    return f"{person.label}: {'; '.join(facts_of(context, person, context.mesh.people()))}"


def _battery(context: Context, person: Person) -> str:
    told = battery_text(person.latest)
    if told:
        return f"{person.label}: battery {told}, {context.ages.ago(person.latest.battery_at)}"
    return f"I have heard no battery level of {person.label}; {heard_text(context, person)}."


def facts_of(context: Context, person: Person, people: Sequence[Person]) -> list[str]:
    """Say all that is known of somebody and may be told to this asker, each with its age."""
    latest = person.latest
    facts = [heard_text(context, person)]
    signal = signal_text(latest)
    if signal:
        facts.append(f"signal {signal}, {context.ages.ago(latest.signal_at)}")
    battery = battery_text(latest)
    if battery:
        facts.append(f"battery {battery}, {context.ages.ago(latest.battery_at)}")
    position = position_text(context, person, people)
    if position:
        facts.append(f"position {position}")
    return facts


# Words

NAME: Final = r"(.{1,40}?)"
WORD: Final = r"([^ ]{1,20})"
_ONE_OR_TWO: Final = r"([^ ]{1,20}(?: [^ ]{1,20})?)"


_ANYBODY: Final = phrases(
    "nodes|node list|(?:list|show)(?: me)?(?: all)?(?: the)? nodes|nodes online|online nodes|online"
    "|who(?:'s| is| was| else is)? (?:online|around|near|nearby|near me|here|there|out there|on"
    "|on air|on the (?:mesh|air|net|network|channel)|in range|active|heard|in the mesh)"
    "(?: (?:now|today|right now))?",
    "who (?:do|can|did|have) you (?:hear|heard|see|seen)(?: (?:now|today|lately|recently))?"
    "|(?:which|what) (?:nodes|stations|radios) (?:are|do you|can you|did you|have you)"
    " (?:online|hear|heard|see|seen|there|around|active|near|nearby)(?: (?:now|today))?"
    "|(?:is )?any(?:body|one)(?: else)? (?:online|around|near|nearby|here|out there|in range"
    "|on the mesh)(?: now)?",
    "nodos|quién está (?:en línea|conectado|ahí|cerca)|quién hay(?: cerca)?",
    "knoten|wer ist (?:da|online|hier|in der nähe|erreichbar)|wen hörst du",
    "вузли|ноди|хто (?:є )?(?:тут|онлайн|в мережі|на зв'язку|поруч)|кого (?:ти )?чуєш",
)

COMMANDS: Final = (
    Command("nodes", "nodes: who was heard", _ANYBODY, _nodes),
    Command(
        "where",
        "where NAME",
        phrases(rf"where {_ONE_OR_TWO}", rf"position {WORD}", rf"locate {WORD}"),
        _of_one(_where),
        _applies_to_anybody,
    ),
    Command(
        "where_plain",
        "",
        phrases(
            rf"where(?:'s| is| are| am) {NAME}(?: now| right now| at| at the moment)?",
            r"where (i) am",
            rf"(?:(?:what(?:'s| is)|show(?: me)?|give me) )?"
            rf"(?:the )?(?:position|location) of {NAME}",
            rf"{NAME} (?:position|location)",
            rf"(?:what(?:'s| is)|show(?: me)?|give me) {NAME}'s (?:position|location)",
            rf"how far(?: away)? is {NAME}(?: from (?:here|me|you))?",
            rf"dónde está {NAME}",
            rf"wo ist {NAME}",
            rf"де (?:зараз )?{NAME}",
        ),
        _of_one(_where),
        _applies_to_exact,
    ),
    Command(
        "last",
        "last NAME",
        phrases(rf"last heard {WORD}", rf"last {_ONE_OR_TWO}"),
        _of_one(_last),
        _applies_to_anybody,
    ),
    Command(
        "last_plain",
        "",
        phrases(
            rf"when (?:did you|have you) last (?:hear|heard|see|seen) (?:from )?{NAME}",
            rf"when was {NAME} (?:last )?(?:heard|seen|online|active)(?: last)?",
            rf"(?:have|did) you (?:hear|heard|see|seen) (?:from )?{NAME}"
            r"(?: today| lately| recently)?",
            rf"is {NAME} (?:online|there|around|alive|up|active|on the mesh)(?: now)?",
            rf"how(?:'s| is) {NAME}'s (?:signal|snr|reception)",
        ),
        _of_one(_last),
        _applies_to_exact,
    ),
    Command(
        "battery",
        "battery NAME",
        phrases(rf"(?:battery|bat) {_ONE_OR_TWO}", rf"{WORD} battery", r"(my) battery"),
        _of_one(_battery),
        _applies_to_exact,
    ),
    Command(
        "battery_plain",
        "",
        phrases(
            rf"battery (?:level |status )?of {NAME}",
            rf"(?:how(?:'s| is)|what(?:'s| is)) (?:the )?battery(?: level| status)? of {NAME}",
            rf"(?:how(?:'s| is)|what(?:'s| is)) {NAME}'s battery(?: level| status| doing| at)?",
            r"(?:how(?:'s| is)|what(?:'s| is)) (my) battery(?: level| status| doing| at)?",
            rf"how much battery (?:does|has) {NAME}(?: have)?(?: left)?",
            rf"batería (?:de )?{NAME}",
            rf"akku (?:von )?{NAME}",
            rf"батарея {NAME}|заряд {NAME}",
        ),
        _of_one(_battery),
        _applies_to_exact,
    ),
)
