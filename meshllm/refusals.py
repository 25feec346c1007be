"""Knows answers that do nothing but refuse, in several languages. Pure; says less than it could."""

from typing import Final

import regex

from meshllm.text import whole_sentences

#: Per language: what stands before the refusal, the refusal itself, and the honest line for it.
#: Only a sentence that is nothing else is one: "I cannot tell without a test" is an answer.
_APOLOGY: Final = (
    r"(?:(?:i(?:'m| am) )?(?:very |really |so )?sorry[,.:;]?\s*(?:but |however,? )?"
    r"|unfortunately,?\s*"
    r"|i apologi[sz]e[,.:;]?\s*(?:but )?|lo siento(?: mucho)?[,.:;]?\s*(?:pero )?"
    r"|lamentablemente,?\s*|disculp[ae][,.:;]?\s*(?:pero )?"
    r"|на жаль,?\s*|(?:мені )?(?:дуже )?(?:шкода|прикро)[,.:;]?\s*(?:але )?|(?:вибачте"
    r"|перепрошую|пробачте)[,.:;]?\s*(?:але )?"
    r"|к сожалению,?\s*|извините[,.:;]?\s*(?:но )?|عذر[اًا]*[,،.:]?\s*(?:لكن |ولكن )?|"
    r"(?:أنا )?آسف[,،.:]?\s*(?:لكن |ولكن )?|للأسف[,،]?\s*"
    r"|(?:मुझे )?(?:क्षमा करें|माफ़ करें|माफ करें|खेद है)[,.:;।]?\s*(?:कि |लेकिन |परंतु )?"
    r"|(?:很|非常)?(?:抱歉|对不起|遗憾)[,，.。:：]?\s*(?:但是?|不过)?|"
    r"(?:je suis )?désolée?[,.:;]?\s*(?:mais )?|(?:es tut mir )?leid[,.:;]?\s*(?:aber )?"
    r"|tut mir leid[,.:;]?\s*(?:aber )?)"
)
_IDENTITY: Final = (
    r"(?:as (?:an? )?(?:ai|artificial intelligence|(?:large )?language model"
    r"|virtual assistant)[^.!?,]{0,40},?\s*"
    r"|como (?:una? )?(?:ia|inteligencia artificial|modelo de lenguaje|asistente)[^.!?,]{0,40},?\s*"
    r"|як (?:мовна модель|штучний інтелект|ші|велика мовна модель)[^.!?,]{0,40},?\s*"
    r"|как (?:языковая модель|искусственный интеллект|ии)[^.!?,]{0,40},?\s*"
    r"|(?:كنموذج لغوي|بصفتي نموذج|كذكاء اصطناعي|بصفتي ذكاء)[^.!؟،]{0,40}،?\s*"
    r"|(?:एक )?(?:ai|एआई|कृत्रिम बुद्धिमत्ता|भाषा मॉडल)[^।.!?,]{0,30}(?:के रूप में"
    r"|होने के नाते|के नाते),?\s*"
    r"|作为(?:一个|一款|一名)?(?:ai|人工智能|大?型?语言模型)[^。！？，]{0,20}[，,]?\s*"
    r"|en tant qu(?:e |')(?:ia|intelligence artificielle|modèle de langage)[^.!?,]{0,40},?\s*"
    r"|als (?:ki|künstliche intelligenz|sprachmodell)[^.!?,]{0,40},?\s*)"
)
_THAT: Final = (
    r"(?: (?:you )?(?:with|about|on|for|to))?(?: (?:you )?(?:this|that|it|your "
    r"(?:request|question)|such (?:requests|topics|content)|(?:this|that|these) (?:kind of "
    r"|type of )?(?:request|question|topic|matter|information|content|advice)s?))*"
)
_REFUSALS: Final = {
    "en": (
        (
            r"i (?:can(?:not|'t)|won't|(?:am|'m) (?:not able|unable)(?: to)?"
            r"|(?:am|'m) not allowed to)"
            r"(?: (?:directly|legally|ethically))? (?:help|assist|answer|provide|do|fulfil?l?"
            r"|comply|discuss|engage|respond|support)"
            rf"(?: with| to| in)?{_THAT}|i(?:'m| am) (?:just |only )?an? (?:ai"
            rf"|language model)[^.!?,]{{0,40}}"
            r"|i do(?:n't| not) have (?:personal (?:opinions|experiences|feelings)|real-time "
            r"(?:data|access|information))[^.!?,]{0,30}"
        ),
        "I cannot help with that.",
    ),
    "es": (
        (
            r"no (?:puedo|me es posible) (?:ayudar(?:te|le|los)?|responder|contestar"
            r"|proporcionar|hacer|cumplir|asistir(?:te|le)?)(?: (?:con|a|en))?(?: (?:eso|esto"
            r"|ello|esa (?:solicitud|pregunta|petición)|esta (?:solicitud|pregunta|petición)"
            r"|tu (?:solicitud|pregunta)|su (?:solicitud|pregunta)))?"
        ),
        "No puedo ayudar con eso.",
    ),
    "uk": (
        (
            r"я не (?:можу|маю змоги)(?: вам| тобі)? (?:з (?:цим|цим питанням) )?(?:допомогти"
            r"|відповісти|надати|виконати)(?: вам| тобі)?(?: (?:з|із|на|в|у) (?:цим|цьому|це"
            r"|це питання|цей запит|таким запитом|цим запитом))?(?: (?:питанням|питання"
            r"|запитом))?"
        ),
        "Я не можу з цим допомогти.",
    ),
    "ru": (
        (
            r"я не могу(?: вам| тебе)? (?:с этим )?(?:помочь|ответить|предоставить|выполнить)"
            r"(?: вам)?(?: (?:с|на|в) (?:этим|этом|этот вопрос|этим вопросом|этим запросом"
            r"|ваш запрос))?"
        ),
        "Я не могу с этим помочь.",
    ),
    "ar": (
        (
            r"(?:أنا )?لا (?:أستطيع|يمكنني|أقدر)(?: على)? (?:مساعدتك|المساعدة|الإجابة|تقديم"
            r"|تلبية|أن أساعدك|الرد)(?: (?:في|على|عن|ب)? ?(?:ذلك|هذا|هذه|بذلك|هذا (?:السؤال"
            r"|الطلب|الأمر|الموضوع)|طلبك|سؤالك))?"
        ),
        "لا أستطيع المساعدة في ذلك.",
    ),
    "hi": (
        (
            r"(?:मैं )?(?:आपकी )?(?:इस(?:में| (?:प्रश्न|सवाल|अनुरोध|विषय|मामले) (?:का|में|पर|को"
            r"|के लिए))? )?(?:आपकी )?(?:मदद|सहायता|उत्तर|जवाब|पूरा)(?: नहीं)?(?: (?:कर|दे))?"
            r"(?: नहीं)? (?:सकता|सकती)(?: (?:हूँ|हूं))?"
        ),
        "मैं इसमें मदद नहीं कर सकता।",
    ),
    "zh": (
        (
            r"我?(?:不能|无法|没办法|没有办法)(?:为您|为你|给您|给你)?(?:帮助|回答|提供|协助"
            r"|满足|处理|完成|帮)(?:您|你)?(?:的)?(?:这个|此|该|这类|这种|您的|你的|这样的)?"
            r"(?:问题|请求|要求|帮助|协助|内容|信息)?"
        ),
        "这个我帮不上忙。",
    ),
    "fr": (
        (
            r"je ne (?:peux|suis) pas (?:(?:en mesure|capable) d[e'] ?)?(?:vous |t'|y )?"
            r"(?:aider|répondre|fournir|faire)(?: (?:à|avec|sur))?(?: (?:cela|ça|ceci|cette "
            r"(?:demande|question)|votre (?:demande|question)))?"
        ),
        "Je ne peux pas aider à cela.",
    ),
    "de": (
        (
            r"(?:ich kann|kann ich|das kann ich|dabei kann ich)(?: (?:ihnen|dir|euch))?(?: "
            r"(?:dabei|damit|das|diese (?:frage|anfrage)))?(?: leider)? nicht (?:weiterhelfen"
            r"|helfen|beantworten|tun|erfüllen)"
        ),
        "Dabei kann ich nicht helfen.",
    ),
}
_TAIL: Final = r"[\s.!?…।。！؟\"')]*"
_REFUSAL: Final = {
    language: regex.compile(rf"{_APOLOGY}?{_IDENTITY}?{_APOLOGY}?(?:{core}){_TAIL}", regex.I)
    for language, (core, _) in _REFUSALS.items()
}
_LINES: Final = frozenset(line for _, line in _REFUSALS.values())
#: Says nothing beside a refusal.
_FILLER: Final = regex.compile(
    rf"{_APOLOGY}{_TAIL}|{_IDENTITY}{_TAIL}"
    r"|(?:(?:is there|do you have|can i help you with|may i help you with)[^.!?]{0,40}"
    r"(?:anything|something|other|another)[^.!?]{0,50}"
    r"|(?:please )?(?:let me know|feel free)[^.!?]{0,80}|please (?:try|ask)[^.!?]{0,20}"
    r"(?:else|another)[^.!?]{0,40}"
    r"|(?:how (?:else )?(?:can|may) i (?:help|assist))[^.!?]{0,40}|thank you[^.!?]{0,40}"
    r"|¿(?:hay|puedo|tienes|tiene|en qué)[^?]{0,60}(?:más|otra cosa|algo|ayudar)[^?]{0,40}"
    r"|(?:чим|чи можу)[^?]{0,60}допомогти[^?]{0,40}|هل (?:يمكنني|هناك|تريد)[^؟]{0,60}"
    r"|क्या[^?।]{0,60}(?:और|अन्य)[^?।]{0,40}|(?:请问)?(?:还)?有(?:什么|其他)[^。？]{0,20}"
    r"(?:帮|问题)[^。？]{0,10})"
    rf"{_TAIL}",
    regex.I,
)


def refusal_line(text: str) -> str:
    """Return the honest line, in its language, for a text that does nothing but refuse, else ""."""
    language = ""
    for sentence in whole_sentences(text):
        found = next((name for name, form in _REFUSAL.items() if form.fullmatch(sentence)), "")
        if not found and not _FILLER.fullmatch(sentence):
            return ""
        language = language or found
    return _REFUSALS[language][1] if language else ""


def is_refusal_line(text: str) -> bool:
    """True for an honest line that another librarian would send in the place of a refusal."""
    return text in _LINES
