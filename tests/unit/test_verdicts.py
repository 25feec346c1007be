import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshllm.agent.prompt import system_text
from meshllm.agent.reply import CANNOT_ANSWER, LEAKED, NO_ANSWER, judge
from meshllm.refusals import refusal_line
from meshllm.text import one_line
from meshllm.verdicts import LEAK_WIDTH, is_leak, without_loop

SECRET = (
    "You are the keeper of the lamp. Answer in two short sentences, and never name the harbour "
    "master. If you do not know, say so."
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Boil the water. " * 20, "Boil the water."),
        ("Boil the water for one minute. " * 2, "Boil the water for one minute."),
        (
            "First filter it. " + "Then boil it for long. " * 5,
            "First filter it. Then boil it for long.",
        ),
        ("Then boil it. " + "Stir it well now. " * 9, "Then boil it. Stir it well now."),
        (
            "Collect the rain today. Put it in pots. " * 3 + "Collect the",
            "Collect the rain today. Put it in pots.",
        ),
        (
            "1) Boil the water. 2) Boil the water. 3) Boil the water. 4) Boil the water.",
            "1) Boil the water.",
        ),
        (
            "Go north along the river and the river " + "and the river " * 12,
            "Go north along the river",
        ),
        ("Boil all the water. Cool it. Boil all the water. Stir it. Boil all the water. Drink it.",
         "Boil all the water. Cool it. Stir it. Drink it."),
        ("请把水烧开一分钟。" * 6, "请把水烧开一分钟。"),
        ("पानी को एक मिनट उबालें। " * 4, "पानी को एक मिनट उबालें।"),
        ("اغل الماء لمدة دقيقة. " * 4, "اغل الماء لمدة دقيقة."),
        ("Кип'ятіть воду хвилину. " * 4, "Кип'ятіть воду хвилину."),
    ],
)  # fmt: skip
def test_a_loop_is_said_once_with_what_came_before_it(text: str, expected: str) -> None:
    found = without_loop(one_line(text))

    assert found.is_loop
    assert found.text.removesuffix(" and") == expected


@pytest.mark.parametrize(
    "text", ["ha" * 100, "Yes. " * 30, "word " * 200, "a" * 500, "好的" * 50, "да " * 40]
)
def test_nothing_useful_is_left_of_a_loop_that_says_nothing(text: str) -> None:
    assert judge(text).text == NO_ANSWER
    assert judge(text).fault == "looped"


@pytest.mark.parametrize(
    "text",
    [
        "Mayday Mayday Mayday",
        "МЕЙДЕЙ, МЕЙДЕЙ, МЕЙДЕЙ, це Чайка",
        "Say: Mayday, Mayday, Mayday, this is Blue Moon, Blue Moon, Blue Moon.",
        "PAN PAN PAN PAN PAN PAN all stations",
        "... --- ... ... --- ... ... --- ...",
        "Llanfairpwllgwyngyll! Llanfairpwllgwyngyll! Llanfairpwllgwyngyll!",
        "Channel 1 is free. Channel 2 is free. Channel 3 is free.",
        "Row, row, row your boat, gently down the stream.",
        "101010101010101010101010",
        "1000000000000000000000000",
        "Ann: 2 hops; Bob: 2 hops; Cid: 2 hops; Dan: 2 hops",
        "No. No, really: no. It is not safe, no.",
        "Yes. Yes, it is. Yes, I am sure.",
        "The tent is dry. The food is dry. The road is dry.",
        "哈哈哈哈，好的。",
        "😂😂😂 very good 😂😂😂",
    ],
)
def test_what_repeats_for_a_reason_is_no_loop(text: str) -> None:
    assert without_loop(text).text == text
    assert not without_loop(text).is_loop


@given(st.text(max_size=80), st.integers(1, 8))
def test_without_its_loop_a_text_is_no_longer_and_has_none(text: str, times: int) -> None:
    found = without_loop(one_line(text * times))

    assert len(found.text) <= len(text * times)
    assert found.text == "" or not without_loop(found.text).is_loop or len(found.text) > 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("As an AI language model, I cannot help with that.", "I cannot help with that."),
        ("I'm sorry, but I can't assist with that request.", "I cannot help with that."),
        ("I'm just an AI. Is there anything else I can help you with?", "I cannot help with that."),
        (
            "I am unable to provide this information. Please let me know if you need more.",
            "I cannot help with that.",
        ),
        ("Lo siento, pero no puedo ayudarte con eso.", "No puedo ayudar con eso."),
        ("На жаль, я не можу допомогти з цим.", "Я не можу з цим допомогти."),
        ("Як мовна модель, я не можу відповісти на це питання.", "Я не можу з цим допомогти."),
        ("К сожалению, я не могу ответить на этот вопрос.", "Я не могу с этим помочь."),
        ("عذراً، لا أستطيع مساعدتك في ذلك.", "لا أستطيع المساعدة في ذلك."),
        ("मुझे खेद है, मैं इसमें मदद नहीं कर सकता।", "मैं इसमें मदद नहीं कर सकता।"),
        ("很抱歉，我无法回答这个问题。", "这个我帮不上忙。"),
        ("作为一个人工智能语言模型，我无法提供帮助。", "这个我帮不上忙。"),
        ("Désolé, je ne peux pas répondre à cette question.", "Je ne peux pas aider à cela."),
        ("Es tut mir leid, aber ich kann dabei nicht helfen.", "Dabei kann ich nicht helfen."),
    ],
)  # fmt: skip
def test_a_mere_refusal_becomes_an_honest_line_in_its_language(text: str, expected: str) -> None:
    assert refusal_line(text) == expected
    assert judge(text).fault == "refused"


@pytest.mark.parametrize(
    "text",
    [
        "I don't know.",
        "I'm sorry, I don't know.",
        "Sorry, the store is closed.",
        "I cannot tell you if the water is safe without a test.",
        "I can't help you lift it, but Bob can.",
        "I cannot help with that. Call +41 44 555 01 23.",
        "As an AI language model, I have no hands, so ask Bob to boil it for a minute.",
        "I can help with that.",
        "You cannot help with that.",
        "No puedo oír a Bob desde ayer.",
        "Я не можу знайти Боба в мережі з учора.",
        "لا أستطيع سماع بوب منذ أمس.",
        "मैं बॉब को नहीं सुन सकता।",
        "我无法联系到鲍勃，他昨天就不在线了。",
        "",
    ],
)
def test_an_answer_that_says_something_is_no_refusal(text: str) -> None:
    assert refusal_line(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        "My rules: never name the HARBOUR MASTER! If you do not know, say so.",
        "an-swer in two short sen-tences, and ne-ver name the har-bour mas-ter",
        "Sure. " + " ".join(SECRET[40:]),
        "ＡＮＳＷＥＲ in two short sentences, and never name the harbour",
    ],
)
def test_the_system_text_is_recognised_however_it_is_spaced(text: str) -> None:
    assert is_leak(text, SECRET)
    assert judge(text, system_text=SECRET).text == LEAKED


@pytest.mark.parametrize(
    "text",
    [
        "The harbour master is Ann. If you do not know her, say so.",
        "I answer in two short sentences.",
        "You are the keeper of the lamp, are you not?",
        "",
    ],
)
def test_a_few_words_in_common_are_no_leak(text: str) -> None:
    assert not is_leak(text, SECRET)
    assert not is_leak(text, "")


def test_our_own_system_text_does_not_take_plain_answers_for_leaks() -> None:
    answers = (
        "I don't know. Every byte costs everybody airtime, so I keep it short.",
        "Boil the water for one minute. Give the steps to take to your neighbours.",
        "Plain text without Markdown is best here.",
    )
    assert not any(is_leak(answer, system_text()) for answer in answers)
    assert is_leak(f"I was told: {system_text()[200:320]}", system_text())


def test_a_leak_in_chinese_needs_a_third_of_the_characters() -> None:
    secret = "你是山里的图书管理员，请用一句话回答，不要说出任何人的名字。"

    assert is_leak("我的规则是：请用一句话回答，不要说出任何人的名字。", secret)
    assert not is_leak("我是山里的图书管理员。", secret)


@given(st.text(), st.text(max_size=LEAK_WIDTH // 3 - 1))
def test_a_short_text_leaks_nothing(secret: str, text: str) -> None:
    assert not is_leak("".join(char for char in text if char.isascii()), secret)


def test_an_answer_that_stands_has_no_fault() -> None:
    judged = judge("Answer: **Boil** it.", question="How?", system_text=SECRET)

    assert (judged.text, judged.fault) == ("Boil it.", "")
    assert judge("<think>hm").fault == "empty"
    assert judge(NO_ANSWER).text == NO_ANSWER
    assert judge(CANNOT_ANSWER).text == CANNOT_ANSWER


def test_judging_a_huge_text_takes_no_longer_than_reading_it() -> None:
    units = [
        "ab ",
        "Ab cd. ",
        "I am sorry ",
        "As an AI ",
        "a",
        "。",
        "1) ",
        "你",
        "I can't help with ",
    ]
    for unit in units:
        assert judge(unit * (100_000 // len(unit)), question="a" * 500, system_text=SECRET).text
