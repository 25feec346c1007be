"""Makes one plain line of what a language model wrote. Pure; splits and judges nothing.

Every step shortens or rearranges in one pass over the text, and the steps are repeated until
nothing changes: cleaning what is clean changes nothing.
"""

import html
import unicodedata
from collections.abc import Iterator
from html.entities import html5
from itertools import pairwise
from typing import Final

import regex

from meshllm.text import ELLIPSIS, MORE_HINT, one_line

#: More than any answer can use; what a runaway model writes after it is not looked at.
MAX_CHARS: Final = 16_000
MAX_PASSES: Final = 40  #: markup nested deeper than this is no markup but an attack
MAX_MARKS: Final = 8  #: combining marks on one character; no script needs more

_THOUGHT: Final = (
    r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad"
    r"|inner_(?:monologue|thoughts?))"
)
#: One mark before or behind reasoning; a group tells one behind it.
_REASONING: Final = regex.compile(
    rf"[<＜]\s?(/?)\s?(?:[a-z]{{1,20}}:)?{_THOUGHT}(?:\s[^<>＜＞]{{0,80}})?\s?(/?)[>＞]"
    rf"|<\|(/?){_THOUGHT}\|>|<\|(?:begin|(end))_of_thought\|>"
    r"|<\|channel\|>\s?(?:analysis|commentary|(final)\s?<\|message\|>)"
    r"|\[(/?)THINK\]|◁(/?)think▷",
    regex.IGNORECASE,
)
#: A code block that its own label calls reasoning.
_THOUGHT_FENCE: Final = regex.compile(
    rf"^[ \t]*```[ \t]*{_THOUGHT}[ \t]*\n(?:(?!```).)*+(?:```[ \t]*(?:\n|\Z)|\Z|(?=```))",
    regex.IGNORECASE | regex.DOTALL | regex.MULTILINE,
)
_CUT_OFF_TAG: Final = regex.compile(
    r"</?(?:t|th|thi|thin|think|thinki|thinkin|thinking)?\Z", regex.I
)

_ESCAPE_SEQUENCE: Final = regex.compile(
    r"\x1b\][^\x07\x1b]{0,500}(?:\x07|\x1b\\)?|[\x1b\x9b]\[?[0-?]{0,50}[ -/]{0,10}[@-~]?"
)
_CONTROL: Final = regex.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_JOINING: Final = (
    r"[\p{Arabic}\p{Syriac}\p{Nko}\p{Mongolian}\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}"
    r"\p{Oriya}\p{Tamil}\p{Telugu}\p{Kannada}\p{Malayalam}\p{Sinhala}\p{Khmer}\p{Myanmar}"
    r"\p{Tibetan}\p{Thaana}]"
)
#: Group 1 is what a script or an emoji needs; all else that cannot be seen goes.
_INVISIBLE: Final = regex.compile(
    r"((?<=[\p{Extended_Pictographic}\ufe0f\U0001f3fb-\U0001f3ff])\u200d"
    r"(?=\p{Extended_Pictographic})"
    rf"|(?<={_JOINING})\u200d|(?<={_JOINING})\u200c(?={_JOINING})"
    r"|(?<=\p{Emoji})[\ufe0e\ufe0f]|(?<=\p{Mongolian})[\u180b-\u180d\u180f]"
    r"|(?<=\p{Han})[\U000e0100-\U000e01ef]"
    r"|(?<=\U0001f3f4)[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)"
    r"|[\p{Default_Ignorable_Code_Point}\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff"
    r"--[\u061c\u200e\u200f]]",
    regex.V1,
)
#: Anything that the rules above and below may have to say about.
_HIDDEN: Final = regex.compile(
    r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u3164\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_JOINERS: Final = regex.compile(r"([\u200c\u200d])[\u200c\u200d]+")
_DIRECTION_MARKS: Final = regex.compile(r"[\u061c\u200e\u200f]+")
_RIGHT_TO_LEFT: Final = regex.compile(
    r"[\p{Bidi_Class=R}\p{Bidi_Class=AL}--[\u061c\u200f]]", regex.V1
)
_MARKS: Final = regex.compile(rf"(\p{{M}}{{{MAX_MARKS}}})\p{{M}}+")
_STYLED: Final = regex.compile(r"[\U0001d400-\U0001d7ff]+")
_ENTITY: Final = regex.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_WIDE: Final = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
#: Two or three bytes for what an ASCII character says as well, on more screens.
_PLAIN: Final = str.maketrans(
    {"‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "‐": "-", "‑": "-", "‒": "-"}
    | {"–": "-", "—": "-", "−": "-", "‾": "-"}
)

_OTHER_TURN: Final = regex.compile(
    r"(?<=\S)\s*(?:<\|(?:im_end|eot_id|end|endoftext|end_of_text|im_start)\|>|<end_of_turn>|</s>"
    r"|\[INST\]|(?:^|\n)[ \t]*(?:\*\*)?(?:user|human)(?:\*\*)?[ \t]?:).*",
    regex.DOTALL | regex.I,
)
_FINAL_CHANNEL: Final = regex.compile(r".*<\|channel\|>\s?final\s?<\|message\|>", regex.DOTALL)
_TOKEN: Final = regex.compile(
    r"<\|[a-z_]{1,30}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>(?:model|user)?", regex.I
)

_COMMENT: Final = regex.compile(r"<!--(?:[^-]|-(?!->)){0,2000}+-->")
_ANCHOR: Final = regex.compile(
    r"<a\s[^<>]{0,100}?href\s?=\s?[\"']?(https?://[^\s\"'<>]{1,500})[\"']?[^<>]{0,100}>"
    r"([^<>]{0,300})</a\s?>",
    regex.I,
)
_BREAKING_TAG: Final = regex.compile(
    r"<(?:/?(?:p|div|tr|h[1-6]|ul|ol|table|blockquote|pre|section|article|header|footer|dl|dt|dd)"
    r"|br|hr|/li)(?:\s[^<>]{0,300})?\s?/?>",
    regex.I,
)
_ITEM_TAG: Final = regex.compile(r"<li(?:\s[^<>]{0,300})?>", regex.I)
_TAG: Final = regex.compile(
    r"</?(?:a|abbr|b|big|body|button|center|cite|code|del|details|dfn|em|figure|figcaption"
    r"|font|form"
    r"|head|html|i|iframe|img|input|ins|kbd|label|li|link|main|mark|meta|nav|q|s|samp|script|small"
    r"|span|strike|strong|style|sub|summary|sup|svg|tbody|td|tfoot|th|thead|time|title|tt|u"
    r"|var|video"
    r"|audio|answer|response|output|final)(?:\s[^<>]{0,300})?\s?/?>",
    regex.I,
)
_ADDRESS: Final = r"<?((?:https?|mailto|tel|geo):(?:[^()\s<>]|\([^()\s<>]{0,100}\)){1,500}+)>?"
_INLINE: Final = tuple(
    (regex.compile(pattern, regex.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"!\[([^\[\]\n]{0,300})\]\([^()\n]{0,500}\)", r"\1"),  # a picture: its description
        (
            rf"\[([^\[\]\n]{{1,300}})\]\(\s?{_ADDRESS}(?:\s[\"'][^\"'\n]{{0,200}}[\"'])?\s?\)",
            r"\1 \2",
        ),
        (rf"\[\]\(\s?{_ADDRESS}\s?\)", r"\1"),
        (r"(?<![\w\])])\[([^\[\]\n]{1,300})\]\([^()\s]{0,300}\)", r"\1"),
        (r"(?<![\w\])])\[([^\[\]\n]{1,300})\]\[[^\[\]\n]{0,50}\]", r"\1"),
        (r"\[\^[^\[\]\s]{1,20}\]:?", ""),
        (r"^[ \t]*\[([^\[\]\n]{1,50})\]:[ \t](?=<?https?://)", r"\1: "),
        (r"<((?:https?|mailto):[^<>\s]{1,500})>", r"\1"),
        (r"(https?://\S{1,500}) \1(?=[\s)\].,;:!?]|\Z)", r"\1"),  # a link's text
        (r"(?<!\p{L})`+|`+(?!\p{L})|``+", ""),  # a lone one inside a word is an apostrophe
        (
            r"(?<![0-9A-Za-z*])\*\*\*?(?=[^\s*])([^\n*]{1,500}+)(?<=\S)\*\*\*?(?![0-9A-Za-z*])",
            r"\1",
        ),
        (r"(?<=^|[\s(\"'«:;,])\*{2,3}(?=[^\s*])|(?<=[^\s*])\*{2,3}(?=$|[\s)\"'».,;:!?])", ""),
        (r"(?<![\w*])\*(?=[^\s*])([^*\n]{1,500}+)(?<=\S)\*(?![\w*])", r"\1"),
        (r"(?<!\w)__(?=[^\s_])([^\n]{1,500}?)(?<=[^\s_])__(?!\w)", r"\1"),
        (r"(?<!\w)_(?=[^\s_])([^_\n]{1,500}+)(?<=\S)_(?!\w)", r"\1"),
        (r"~~(?=\S)([^~\n]{1,500}+)~~", r"\1"),
        (r"\\([*_`#\[\]~>|!])", r"\1"),
        (r"\\[()\[\]](?=\s)|(?<=\s)\\[()\[\]]|\$\$", ""),
        (r"\\(?:text|mathrm|mathbf|textbf|boxed)\{([^{}\n]{0,200})\}", r"\1"),
        (r"\\d?frac\{([^{}\n]{1,50})\}\{([^{}\n]{1,50})\}", r"\1/\2"),
        (r"\^?\{?\\(?:circ|degree)\}?", "°"),
        (r"\\(?:times|cdot)\b", "×"),
        (r"\\approx\b", "≈"),
        (r"\\(?:leq?)\b", "≤"),
        (r"\\(?:geq?)\b", "≥"),
        (r"([\p{P}\p{S}])\1{7,}", r"\1\1\1"),
    )
)

_FENCE: Final = regex.compile(r"(?:```|~~~)[\w+#.-]{0,30}[^`\S]*\Z")
_UNDERLINE: Final = regex.compile(r"(?:-{3,}|={3,}|\*{3,}|_{3,}|~{3,})\Z")
_RULE: Final = regex.compile(r"(?:([-*_])[ \t]+){2,200}+[-*_]\Z|[-|:+= \t]{0,1000}--[-|:+= \t]*\Z")
_QUOTED: Final = regex.compile(r"\A(?:>[ \t]?)+")
_HEADING: Final = regex.compile(r"#{1,6}[ \t]+(?P<text>.*?)[ \t#]*\Z")
_BOLD_LINE: Final = regex.compile(r"(?:\*\*|__)(?P<text>[^*_]{1,200})(?:\*\*|__)[ \t]*:?\Z")
_ITEM: Final = regex.compile(
    r"(?:[*+•‣◦▪●○■–—-][ \t]+(?!\d)(?=.*[\p{L}\p{N}\p{So}]))+(?:\[[ xX]\][ \t]+)?(?P<text>.*)\Z"
)
_NUMBERED: Final = regex.compile(r"(?:\*\*|__)?(\d{1,3})[.)](?:\*\*|__)?[ \t]+(?P<text>.*)\Z")
_ORDINAL: Final = regex.compile(r"(?:(?<=[.:!?;।。：；][ \"]?)|(?<=^))\s?(\d{1,2})\.(?=\s\S)")
_CELL_EDGE: Final = regex.compile(r"(?<!\\)\|")
_STOPPED: Final = regex.compile(
    r"[\p{Sentence_Terminal}…:;,،؛：；，、\-·/][\"')\]»”’」』）*_]{0,4}\Z", regex.V1
)
_WIDE_STOPPED: Final = regex.compile(r"[。！？，、；：」』）]\Z")
_DIGIT_OR_LARGE: Final = regex.compile(r"[\p{Lu}\p{N}]")
_SHORT_LINE: Final = 60  #: a longer line that ends without a stop was wrapped, not ended

_NAMES: Final = (
    r"librarian|assistant|(?:final |short )?answer|response|reply|ai|bot"
    r"|respuesta|bibliotecari[oa]|asistente|resposta|bibliotecário|risposta"
    r"|réponse|bibliothécaire|antwort|bibliothekar(?:in)?"
    r"|відповідь|бібліотекар|асистент|помічник|ответ|библиотекарь|ассистент|помощник"
    r"|الجواب|الإجابة|إجابة|جواب|أمين المكتبة|المساعد|उत्तर|जवाब|पुस्तकालयाध्यक्ष|सहायक"
    r"|回答|答案|答|图书管理员|图书馆员|助手"
)
_FRONT: Final = regex.compile(
    rf"(?:\((\d{{1,2}})/(\d{{1,2}})\)|\[\d{{1,2}}/\d{{1,2}}\]|[\[(<]?"
    rf"(?:{_NAMES})[\])>]?\s?[:：])\s*",
    regex.IGNORECASE,
)
_QUESTION_LABEL: Final = regex.compile(
    r"(?:q|question|your question|pregunta|frage|питання|запитання|вопрос|سؤال|السؤال"
    r"|प्रश्न|सवाल|问题|问)\s?[:：]\s?",
    regex.IGNORECASE,
)
_ECHO_END: Final = regex.compile(r"\p{M}*[\"'»”)\s]{0,3}(?:[?？؟:：]|[-–—]\s)[\"'»”)?]*")
_ANSWER_LABEL: Final = regex.compile(r"[\s>\-]*(?:a\s?[:：]\s?)?", regex.IGNORECASE)
_HINTS: Final = regex.compile(
    rf"(?:\s?{ELLIPSIS}?\s?{regex.escape(MORE_HINT.strip())})+\Z", regex.IGNORECASE
)
_QUOTES: Final = (
    ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"), ("„", "“"), ("「", "」"),
    ("『", "』"),
)  # fmt: skip
_MARKUP: Final = regex.compile(r"[*_`~#|<>\[\](){}\\\"'«»“”„‘’「」『』&^$•]")
_MIN_ECHO: Final = 6  #: letters and digits of a question that its repetition must have


def strip_thinking(text: str) -> str:
    """Drop reasoning: closed blocks, all before an orphan closing tag, all after an open one."""
    text = _THOUGHT_FENCE.sub("", text)
    if not has_thinking(text):
        return text
    kept: list[str] = []
    at = 0
    is_open = False
    for tag in _REASONING.finditer(text):
        if not any(tag.groups()):
            if not is_open:
                kept.append(text[at : tag.start()])
            is_open = True
            continue
        if not is_open:
            kept.clear()
        is_open, at = False, tag.end()
    if not is_open:
        kept.append(_CUT_OFF_TAG.sub("", text[at:]))
    return "".join(kept)


def has_thinking(text: str) -> bool:
    """Say whether reasoning is marked anywhere in a text."""
    return _REASONING.search(text) is not None


def has_thought(text: str) -> bool:
    """Say whether reasoning has come to an end somewhere in a text."""
    return any(any(tag.groups()) for tag in _REASONING.finditer(text))


def is_thinking(text: str) -> bool:
    """Say whether a growing text stands in reasoning that has not come to its end."""
    tags = list(_REASONING.finditer(text))
    return bool(tags) and not any(tags[-1].groups())


def clean_model_text(text: str, *, question: str = "") -> str:
    """Turn generated text into one plain line, "" when nothing is left of it.

    Gone are reasoning, Markdown, HTML, controls, invisible characters, turns that the model made
    up, its own part marks, names and quotes around the whole, and `question` where the text begins
    by repeating it. Lists, tables and paragraphs become sentences; web addresses stay.
    """
    text = unicodedata.normalize("NFC", strip_thinking(_visible(text))[:MAX_CHARS])
    for _ in range(MAX_PASSES):
        cleaned = _cleaned_once(text, question)
        if cleaned == text:
            return text
        text = cleaned
    text = one_line(_MARKUP.sub("", text))
    return _cleaned_once(text, question)


def plain_line(text: str) -> str:
    """Turn any text into one line without what acts on a screen or cannot be seen; markup stays."""
    return one_line(unicodedata.normalize("NFC", _unhidden(text)))


def _cleaned_once(text: str, question: str) -> str:
    text = _own_turn(strip_thinking(_visible(text)))
    text = _without_tags(text)
    text = _prose(text)
    for pattern, replacement in _INLINE:
        text = pattern.sub(replacement, text)
    text = _numbered_alike(_plain_typography(one_line(text)))
    text = _without_question(_HINTS.sub("", _without_front(text)), question)
    return one_line(unicodedata.normalize("NFC", text))


def _visible(text: str) -> str:
    text = _unhidden(_ENTITY.sub(_character, text))
    if text.isascii():
        return text
    return str(_STYLED.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text))


def _unhidden(text: str) -> str:
    """Drop what acts on a screen or cannot be seen."""
    text = _CONTROL.sub("", _ESCAPE_SEQUENCE.sub("", text))
    if text.isascii():
        return text
    if _HIDDEN.search(text):
        text = _without_hidden(text)
    return str(_MARKS.sub(r"\1", text))


def _without_hidden(text: str) -> str:
    text = _JOINERS.sub(r"\1", text)
    text = _INVISIBLE.sub(lambda match: match[1] or "", text)
    if _DIRECTION_MARKS.search(text):
        keeps = _RIGHT_TO_LEFT.search(text) is not None
        text = _DIRECTION_MARKS.sub(lambda match: match[0][0] if keeps else "", text)
    return text


def _character(entity: "regex.Match[str]") -> str:
    name = entity.group()
    return html.unescape(name) if name[1] == "#" or name[1:] in html5 else name


def _own_turn(text: str) -> str:
    """Keep the model's own turn of what may be a whole made-up dialogue."""
    text = _FINAL_CHANNEL.sub("", text, count=1)
    return str(_TOKEN.sub("", _OTHER_TURN.sub("", text.strip(), count=1)))


def _without_tags(text: str) -> str:
    if "<" not in text:
        return text
    text = _ANCHOR.sub(r"\2 \1", _COMMENT.sub("", text))
    text = _ITEM_TAG.sub("\n- ", _BREAKING_TAG.sub("\n", text))
    return str(_TAG.sub("", text))


def _prose(text: str) -> str:
    """Join lines into one, with a stop where the line break was one."""
    blocks = list(_blocks(text.splitlines()))
    joined = [line for _, line in blocks[:1]]
    for (kind, line), (next_kind, following) in pairwise(blocks):
        joined.append(_joint(kind, line, next_kind, following))
        joined.append(following)
    return "".join(joined)


def _blocks(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield kind and text of each line: heading, item, row, code, text; a blank line as a break."""
    lines = [_QUOTED.sub("", line.strip(), count=1).strip() for line in lines]
    rows = _table_rows(lines)
    is_code = False
    for number, line in enumerate(lines):
        if _FENCE.match(line):
            is_code = not is_code
        elif not line or _RULE.match(line) or _UNDERLINE.match(line):
            continue
        elif is_code:
            yield "code", line
        elif number in rows:
            yield "row", _row(line)
        else:
            is_broken = number + 1 < len(lines) and not lines[number + 1]
            is_underlined = number + 1 < len(lines) and _UNDERLINE.match(lines[number + 1])
            kind, text = _block(line)
            if kind == "text" and is_underlined:
                kind = "heading"
            yield ("paragraph" if kind == "text" and is_broken else kind), text


def _block(line: str) -> tuple[str, str]:
    if heading := _HEADING.match(line) or _BOLD_LINE.match(line):
        return "heading", heading["text"].strip()
    if item := _ITEM.match(line):
        return "item", item["text"]
    if item := _NUMBERED.match(line):
        return "item", f"{item[1]}) {item['text']}"
    return "text", line


def _table_rows(lines: list[str]) -> set[int]:
    """Return the numbers of lines that are rows of a table."""
    rows = {i for i, line in enumerate(lines) if line.startswith("|") and line.count("|") > 1}
    for i, line in enumerate(lines):
        if i and "|" in line and _RULE.match(line) and "|" in lines[i - 1]:
            rows.add(i - 1)
        elif i - 1 in rows or (i > 1 and i - 2 in rows and _RULE.match(lines[i - 1])):
            rows |= {i} if "|" in line else set()
    return rows


def _row(line: str) -> str:
    line = line.strip().removeprefix("|")
    cells = [cell.strip() for cell in _CELL_EDGE.split(line)]
    while cells and not cells[-1]:
        cells.pop()
    if len(cells) == 2 and all(cells):
        return f"{cells[0].removesuffix(':')}: {cells[1]}"
    return ", ".join(cell or "-" for cell in cells)


def _joint(kind: str, line: str, next_kind: str, following: str) -> str:
    """Choose what stands between two lines."""
    if _STOPPED.search(line):
        return "" if _WIDE_STOPPED.search(line) else " "
    if kind == "heading" or (next_kind == "item" and kind in {"text", "paragraph"}):
        return ": "
    listed = {"item", "row", "code"}
    if kind == next_kind and kind in listed:
        return f"{_semicolon(line)} "
    if kind in {"item", "row", "paragraph"}:
        return _full_stop(line)
    is_ended = len(line) < _SHORT_LINE and _DIGIT_OR_LARGE.match(following)
    return f"{_semicolon(line)} " if is_ended else " "


def _semicolon(line: str) -> str:
    script = unicodedata.name(_last_letter(line), "")
    if script.startswith("ARABIC"):
        return "؛"
    return "," if script.startswith("GREEK") else ";"  # where ";" is the question mark


def _full_stop(line: str) -> str:
    letter = _last_letter(line)
    script = unicodedata.name(letter, "")
    if script.startswith("DEVANAGARI"):
        return "। "
    return "。" if _WIDE.match(letter) else ". "


def _last_letter(line: str) -> str:
    return next((char for char in reversed(line) if char.isalpha()), " ")


def _numbered_alike(line: str) -> str:
    """Write "1. … 2. …" in one line as "1) … 2) …": a number is no sentence end."""
    marks = list(_ORDINAL.finditer(line))
    if [mark[1] for mark in marks[:2]] not in (["1", "2"], ["2", "3"]):
        return line
    counted = int(marks[0][1])
    for mark in marks:
        if int(mark[1]) == counted:
            line = line[: mark.end() - 1] + ")" + line[mark.end() :]
            counted += 1
    return line


def _plain_typography(line: str) -> str:
    return line if line.isascii() or _WIDE.search(line) else line.translate(_PLAIN)


def _without_front(text: str) -> str:
    """Drop part marks, names and bullets in front, and quotes around the whole, in any order."""
    total = ""
    while True:
        front = _FRONT.match(text)
        total = total or (front[2] if front and front[2] else "")
        shorter = _unquoted(text[front.end() :] if front else text)
        if shorter == text:
            break
        text = shorter
    if total:
        text = regex.sub(rf"(?<=\s)\(\d{{1,2}}/{total}\)\s", "", text)
    return text


def _unquoted(text: str) -> str:
    for opening, closing in _QUOTES:
        inner = text[1:-1]
        wraps = len(text) > 1 and text.startswith(opening) and text.endswith(closing)
        if wraps and opening not in inner and closing not in inner:
            return inner.strip()
    return text


def _without_question(text: str, question: str) -> str:
    """Drop the question in front of an answer that begins by repeating it."""
    wanted = [char for char in question.casefold() if char.isalnum()]
    if len(wanted) < _MIN_ECHO:
        return text
    label = _QUESTION_LABEL.match(text)
    start = label.end() if label else 0
    at, matched = start, 0
    while matched < len(wanted) and at < len(text):
        for char in text[at].casefold():
            if char.isalnum():
                if matched >= len(wanted) or char != wanted[matched]:
                    return text
                matched += 1
        at += 1
    end = _ECHO_END.match(text, at)
    if matched < len(wanted) or not (end or label):
        return text
    at = end.end() if end else at
    remainder = text[at:]
    return remainder[_ANSWER_LABEL.match(remainder).end() :].strip() or text
