import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from meshllm.cleaning import MAX_CHARS, clean_model_text, plain_line, strip_thinking
from meshllm.text import is_part_marked, one_line

ATOMS = (
    "a~B~9~1.~2.~ ~  ~\n~\n\n~. ~! ~**~*~__~_~`~```~# ~## ~> ~- ~* ~1. ~2) ~|~|---|~---~===~[~](~)"
    "~<~>~<b>~</b>~<br>~<li>~<think>~</think>~<|im_end|>~&amp;~&lt;~&#27;~&#8238;~\x1b[31m"
    "~\x07~\ud800"
    "~\"~'~“~”~«~»~(1/2) ~(2/2) ~Librarian: ~Answer:~Відповідь: ~答案："
    "~User: ~ (more?)~…~—~’~\\*~$$"
    "~https://e.org/a_b~e\u0301~\u0301~\u200d~\u200c~\u202e~\u200f~\ufe0f~👨‍👩‍👧~🇺🇦~ش~می~क्ष~水。~𝗕"
)
texts = st.lists(st.sampled_from([*ATOMS.split("~"), "~~"]) | st.text(max_size=6), max_size=40).map(
    "".join
)
HIDDEN = regex.compile(
    r"[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u00ad\u200b\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


@given(st.text() | texts)
def test_cleaned_text_is_one_line_without_anything_that_acts_or_hides(text: str) -> None:
    cleaned = clean_model_text(text)

    assert cleaned == one_line(cleaned)
    assert not HIDDEN.search(cleaned)
    assert not is_part_marked(cleaned + " ")
    assert unicodedata.is_normalized("NFC", cleaned)


@given(st.text() | texts, st.sampled_from(["", "How do I boil water?", "Why is it a. ?"]))
def test_cleaning_what_is_clean_changes_nothing(text: str, question: str) -> None:
    cleaned = clean_model_text(text, question=question)

    assert clean_model_text(cleaned, question=question) == cleaned


@given(st.text() | texts)
def test_a_plain_line_keeps_all_that_can_be_seen(text: str) -> None:
    line = plain_line(text)

    assert plain_line(line) == line
    assert not HIDDEN.search(line)


@given(st.text(alphabet=st.characters(categories=["L", "Nd"], max_codepoint=0x24F), min_size=1))
def test_letters_and_digits_survive_cleaning(text: str) -> None:
    assert clean_model_text(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>The user asks.</think> It is 81.", " It is 81."),
        ("The user asks.\n</think>\nIt is 81.", "\nIt is 81."),
        ("It is 81.<think>Is it", "It is 81."),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("x<think>a</think>c</think>d", "d"),
        ("<THINK>a</Think>b<thinking>c</thinking>", "b"),
        ("I think so.", "I think so."),
    ],
)
def test_reasoning_is_dropped_in_every_shape_it_comes_in(text: str, expected: str) -> None:
    assert strip_thinking(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**Boil** the water for *one* minute.", "Boil the water for one minute."),
        ("## Water\n* boil\n+ wait\n1. drink", "Water: boil; wait; 1) drink"),
        ("```sh\nls -l\n```\nlists `files`", "ls -l lists files"),
        ("See [the page](https://e.org/a_b_c).", "See the page https://e.org/a_b_c."),
        ("2 * 3 * 4 and snake_case_name stay", "2 * 3 * 4 and snake_case_name stay"),
        ("channel #1 and a - b stay", "channel #1 and a - b stay"),
        ("a\n---\n| x | y |\n|---|---|", "a: x: y"),
        ('Librarian: "(1/2) Hello"', "Hello"),
        ("(1/2) (2/2) Assistant: «Hi»", "Hi"),
        ('"A" or "B"', '"A" or "B"'),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07\x9b2Jok\x07", "red ok"),
        ("a\u202eb\u200bc\ufeff", "abc"),
        ("👨‍👩‍👧 mother", "👨‍👩‍👧 mother"),
        ("می‌خواهم", "می‌خواهم"),
        ("\ud800", "\ufffd"),
        ("<th\x00ink>secret</think>Yes", "Yes"),
        (" \n\t ", ""),
    ],
)
def test_model_text_is_cleaned(text: str, expected: str) -> None:
    assert clean_model_text(text) == expected


def test_cleaning_a_huge_hostile_text_takes_no_longer_than_reading_it() -> None:
    units = (
        '*|_|`|[|[a](|<|<think>|> |\x1b[|~~|(|# |- |1. |&amp;|"|Librarian: |a\n|<a href=|<!--|\\'
    )
    for unit in [
        *units.split("|"),
        "| a ",
        "|",
        "\u0301",
        "👨\u200d",
        "<think>a</think>",
        "```think\n",
        "< think ",
        "**a",
        "$$",
    ]:
        assert len(clean_model_text(unit * (100_000 // len(unit)))) <= MAX_CHARS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<thought>hm</thought>Yes", "Yes"),
        ("<reasoning depth='2'>hm</reasoning>Yes", "Yes"),
        ("[THINK]hm[/THINK]Yes", "Yes"),
        ("◁think▷hm◁/think▷Yes", "Yes"),
        ("<think></think>Yes</thin", "Yes"),
        ("<think>a</think>Yes<think>b</think> it is", "Yes it is"),
        ("< think >hm</ think >Yes", "Yes"),
        ("＜think＞hm＜/think＞Yes", "Yes"),
        ("<seed:think>hm</seed:think>Yes", "Yes"),
        ("<analysis>hm</analysis>Yes", "Yes"),
        ("<|think|>hm<|/think|>Yes", "Yes"),
        ("<|begin_of_thought|>hm<|end_of_thought|>Yes", "Yes"),
        ("<|channel|>analysis<|message|>hm, this takes long", ""),
        ("<|channel|>analysis<|message|>hm<|channel|>final<|message|>Yes", "Yes"),
        ("```thinking\nhm\n```\nYes", "Yes"),
        ("```think\nhm, this takes long", ""),
        ("<think/>Yes", "Yes"),
        ("```\nthink\n```", "```\nthink\n```"),
    ],
)
def test_reasoning_of_other_makers_is_dropped(text: str, expected: str) -> None:
    assert strip_thinking(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is 81.<|im_end|>\n<|im_start|>user\nThanks", "It is 81."),
        ("It is 81.\nUser: thanks\nAssistant: welcome", "It is 81."),
        (
            "<|channel|>analysis<|message|>hm<|end|><|channel|>final<|message|>It is 81.",
            "It is 81.",
        ),
        ("<s>It is 81.</s>", "It is 81."),
        ("Ask the user: he knows.", "Ask the user: he knows."),
    ],
)
def test_only_the_models_own_turn_is_kept(text: str, expected: str) -> None:
    assert clean_model_text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "| Name | Battery |\n|---|:-:|\n| Ann | 80 % |\n| Bob | |",
            "Name: Battery; Ann: 80 %; Bob",
        ),
        ("a | b | c\n--|---|--\n1 | | 3\nThen go.", "a, b, c; 1, -, 3. Then go."),
        ("ls | grep a", "ls | grep a"),
        (
            "Do this\n\n1. **Boil** it.\n2. Cool it\n   - slowly\n3) Drink",
            "Do this: 1) Boil it. 2) Cool it; slowly; 3) Drink",
        ),
        ("1. Boil it. 2. Cool it. 3. Drink it.", "1) Boil it. 2) Cool it. 3) Drink it."),
        ("- [x] boil\n- [ ] cool", "boil; cool"),
        ("**Steps**\n\nBoil it", "Steps: Boil it"),
        ("Water\n=====\nBoil it", "Water: Boil it"),
        ("First thing\n\nSecond thing", "First thing. Second thing"),
        ("Battery: 80 %\nHops: 2", "Battery: 80 %; Hops: 2"),
        ("a line that was wrapped\nin the middle", "a line that was wrapped in the middle"),
        ("पहला\n\nदूसरा", "पहला। दूसरा"),
        ("- واحد\n- اثنان", "واحد؛ اثنان"),
        ("- ένα\n- δύο", "ένα, δύο"),
        ("第一步，\n第二步。\n第三步", "第一步，第二步。第三步"),
        ("- 5 °C at night", "- 5 °C at night"),
        ("... --- ...", "... --- ..."),
        ("- .... .", "- .... ."),
        ("**Boil the water", "Boil the water"),
        ("2**3 is 8 and a ** b", "2**3 is 8 and a ** b"),
        ("***very*** __im__portant ~~not~~", "very __im__portant not"),
        ("这是**重要**的", "这是重要的"),
        ("п`ять хвилин і `код`", "п`ять хвилин і код"),
        ("<p>Boil <b>it</b>.</p><ul><li>hot</li><li>clean</li></ul>", "Boil it. hot; clean"),
        ("x < 5, y > 3, ssh <host>, <3", "x < 5, y > 3, ssh <host>, <3"),
        ("salt &amp; pepper &lt;b&gt;now&lt;/b&gt; &bogus;", "salt & pepper now &bogus;"),
        ("<!-- note -->Hi<br/>there", "Hi there"),
        ("![a tent](https://e.org/t.png) here", "a tent here"),
        (
            "[https://e.org](https://e.org) [b](https://e.org/c_(d)) [e](f.md)",
            "https://e.org b https://e.org/c_(d) e",
        ),
        ("as said[^1] in <https://e.org/x>", "as said in https://e.org/x"),
        ('<a href="https://e.org/x">page</a>', "page https://e.org/x"),
        ("\\( \\frac{1}{2} \\times 4 \\) at 20^\\circ", "1/2 × 4 at 20°"),
        ("don’t “wait” – go — now…", 'don\'t "wait" - go - now…'),
        ("他说“好”。", "他说“好”。"),
        ("𝗕𝗼𝗶𝗹", "Boil"),
        ("Help!!!!!!!!!!!!! 😂😂😂😂😂😂😂😂😂", "Help!!! 😂😂😂"),
    ],
)  # fmt: skip
def test_markup_of_every_kind_becomes_prose(text: str, expected: str) -> None:
    assert clean_model_text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**Answer:** yes", "yes"),
        ("[Librarian]: yes", "yes"),
        ("Final answer: 42", "42"),
        ("Respuesta: sí", "sí"),
        ("Відповідь: так", "так"),
        ("الجواب: نعم", "نعم"),
        ("उत्तर: हाँ", "हाँ"),
        ("答案：是", "是"),
        ("(1/2) Boil it. (2/2) Cool it.", "Boil it. Cool it."),
        ("Boil it. (more?)", "Boil it."),
        ("“Boil it.”", "Boil it."),
        ("Note: the answer: is here", "Note: the answer: is here"),
        ("Answering machines beep", "Answering machines beep"),
        ("1/2 cup of salt", "1/2 cup of salt"),
    ],
)
def test_what_stands_around_an_answer_is_dropped(text: str, expected: str) -> None:
    assert clean_model_text(text) == expected


@pytest.mark.parametrize(
    ("question", "text", "expected"),
    [
        ("How do I boil water?", "How do I boil water? Use a pot.", "Use a pot."),
        ("how do i boil water", "**How do I boil water?**\n\nUse a pot.", "Use a pot."),
        ("How do I boil water?", "Q: How do I boil water?\nA: Use a pot.", "Use a pot."),
        ("How do I boil water?", '"How do I boil water?" Use a pot.', "Use a pot."),
        ("¿Cómo hiervo el agua?", "¿Cómo hiervo el agua? En una olla.", "En una olla."),
        ("Як кип'ятити воду?", "Як кип’ятити воду? У каструлі.", "У каструлі."),
        ("كيف أغلي الماء؟", "كيف أغلي الماء؟ في قدر.", "في قدر."),
        ("पानी कैसे उबालें?", "पानी कैसे उबालें? बर्तन में।", "बर्तन में।"),
        ("这里怎么把水烧开呢？", "这里怎么把水烧开呢？用锅。", "用锅。"),
        ("boil the water", "Boil the water for one minute.", "Boil the water for one minute."),
        ("water?", "Water? Boil it.", "Water? Boil it."),
        ("How do I boil water?", "How do I boil water?", "How do I boil water?"),
        (
            "How do I boil water?",
            "How do I boil rice? Like water.",
            "How do I boil rice? Like water.",
        ),
    ],
)
def test_a_repeated_question_is_dropped_and_nothing_else(
    question: str, text: str, expected: str
) -> None:
    assert clean_model_text(text, question=question) == expected


@pytest.mark.parametrize(
    "text",
    [
        "👨‍👩‍👧‍👦 ❤️ 🏳️‍🌈 1️⃣ 👍🏽 🇺🇦",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "می‌خواهم",
        "क्‍ष और क्‌ष",
        "ന്‍",
        "ශ්‍රී",
        "تكلفة ABC\u200f 12.5",
        "葛\U000e0100",
        "café naïve",
    ],
)
def test_joiners_and_marks_that_a_script_needs_stay(text: str) -> None:
    assert clean_model_text(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\u200db\u200cc", "abc"),
        ("می\u200c\u200c\u200cخ", "می\u200cخ"),
        ("a\u200fb", "ab"),
        ("ש\u200f\u200f\u200fa", "ש\u200fa"),
        ("x\ufe0f\ufe01\U000e0101", "x"),
        ("a" + "".join(chr(0xE0020 + n) for n in range(90)), "a"),
        ("\u2066a\u2069\u3164\u115f\u034fb", "ab"),
        ("Z" + "\u0335" * 50, "Z" + "\u0335" * 8),
        ("&#27;[2J&#8238;x", "[2Jx"),
        ("a\u2028b\x85c", "a b c"),
    ],
)
def test_what_hides_text_or_acts_on_a_screen_goes(text: str, expected: str) -> None:
    assert clean_model_text(text) == expected
