"""The word rules of safety: patterns by danger and language, and the fixed lines. Holds no logic.

Patterns read text as `safety` makes it plain: folded case, one space, Latin letters without
accents. They stop at the end of a sentence, so that two harmless sentences never add up. Refused
dangers stand before the emergency: a made-up emergency must not open the way to a weapon.
"""

from typing import Final

_PERSON: Final = (
    r"\b(?:he|she|they|i|someone|somebody|person|man|woman|child|kid|baby|toddler|infant|boy|girl|"
    r"friend|wife|husband|mother|father|mom|mum|dad|son|daughter|brother|sister|partner|patient|"
    r"hiker|climber|victim|neighbou?r|guy|uncle|aunt|grand\w+|colleague|casualty)(?:'s|'ve|'m)?\b"
)
_ADJECTIVES: Final = (
    r"(?: (?:me|us|an?|the|some|my|our|own|your|simple|small|little|big|powerful|home-?made|"
    r"improvised|effective|cheap|real|working|remote|controlled|quick|deadly|lethal|diy))*"
)
_MAKE: Final = (
    r"\b(?:mak(?:e|ing)|build(?:ing)?|construct(?:ing)?|assembl(?:e|ing)|creat(?:e|ing)|mix|cook|"
    r"prepar(?:e|ing)|produc(?:e|ing)|manufactur(?:e|ing)|rig|detonat(?:e|ing)|synthesi[sz](?:e|ing)|"
    r"3d[ -]?print|recipe for|instructions for|plans for)"
)
_WEAPON: Final = (
    r"(?:(?:pipe|dirty|nail|fertili[sz]er|car|petrol|gas|letter|fire|time) )?bombs?\b"
    r"(?! (?:shelter|cyclone|calorimeter))"
    r"|explosives?\b(?! safe)|(?:explosive|incendiary) devices?\b|ieds?\b|molotovs?\b|grenades?\b|"
    r"land ?mines?\b|detonators?\b|blasting caps?\b|gun ?powder\b(?! tea)|c-?4\b(?! (?:diagram|model|plant))|tnt\b|thermite\b|"
    r"(?:gun )?silencers?\b(?! for (?:\w+ )?(?:generator|engine|exhaust|fan|car|motor))|(?:ghost|zip|pipe|machine|3d[ -]?printed) guns?\b|napalm\b|sarin\b|"
    r"(?:nerve|mustard|chlorine|poison|toxic) gas\b|nerve agents?\b|booby ?traps?\b|"
    r"(?:bio|biological |chemical |nuclear )weapons?\b"
)
_POISON: Final = (
    r"(?:ricin|cyanide|strychnine|botulinum\w*|poison gas|untraceable poison|poison to kill|"
    r"fentanyl|meth|methamphetamine|crystal meth|crack cocaine|heroin|date[- ]rape drugs?)\b"
)
_INTENT: Final = (
    r"\b(?:how (?:to|do i|do you|can i|could i|would i|would you|should i)|i want to|wanna|"
    r"i(?:'m| am) (?:going|gonna|planning) (?:to )?|(?:best|easiest|quickest) way to|"
    r"help me(?: to)?|ways? to) ?(?:\w+ly )?"
)
_KIN: Final = (
    r"(?:wife|husband|boss|neighbou?r|ex|father|mother|dad|mom|mum|brother|sister|friend|"
    r"girlfriend|boyfriend|roommate|partner|family|teacher)"
)
_VICTIM: Final = (
    rf"(?:someone|somebody|people|a (?:person|man|woman|child|human|human being|cop|policeman)|"
    rf"my {_KIN}|the (?:president|neighbou?rs?|police)|another person)\b(?!'s (?:plants?|weeds))"
)

_SELF_HARM: Final = (
    r"\b(?:kill|killing|hang|hanging|drown|drowning|harm|harming) (?:my|him|her|your|them)sel(?:f|ves)\b",
    (
        r"\b(?:want|going|wanna|gonna|plan|planning|thinking|feel|feeling|need|urge)\b[^.?!]{0,20}"
        r"\b(?:hurt|hurting|cut|cutting|shoot|poison) myself\b"
    ),
    (
        r"\b(?:commit\w*|attempt\w*|thinking (?:of|about)|consider\w*|painless|ways? (?:to|of)|feel\w*|"
        r"i'?m|i am|he'?s|she'?s|is)\b[^.?!]{0,15}\bsuicid(?:e|al)\b"
    ),
    r"\bsuicid(?:e|al) (?:thoughts?|methods?|plans?)\b",
    r"\b(?:end|ending|take|taking) (?:my|his|her) (?:own )?life\b",
    r"\bi (?:just |really )?(?:want|wanna|wish) (?:to )?(?:die\b(?! my)|be dead|i was dead|i were dead)\b",
    r"\b(?:don'?t|do not) (?:want to|wanna) (?:live|be alive)\b",
    r"\bhow many (?:\w+ )?(?:pills|tablets|\w+) (?:to|does it take to|do i need to) (?:die|overdose)\b",
    # Spanish, German, French
    r"\b(?:matarme|suicidarme|quitarme la vida|ahorcarme)\b",
    r"\b(?:quiero|ganas de) morir(?:me)?\b|\bno quiero vivir\b",
    r"\bmich (?:selbst )?(?:umbringen|toten|erhangen)\b|\bbringe mich um\b",
    r"\bmir das leben (?:zu )?nehmen\b|\bselbstmord (?:zu )?(?:begehen|machen)\b",
    r"\bwill (?:nicht mehr leben|sterben)\b",
    r"\bme (?:tuer|suicider|pendre)\b|\b(?:envie de|veux) mourir\b",
    r"\bmettre fin a mes jours\b|\ben finir avec (?:la|ma) vie\b",
    # Ukrainian, Russian
    r"\b(?:вбити|убити) себе\b|\bпокінчити (?:з собою|життя)|\bнакласти на себе руки\b",
    r"\bне хочу жити\b|\bхочу (?:померти|вмерти)\b|\bдумаю про самогубство\b",
    r"\b(?:убить себя|покончить с собой|не хочу жить|хочу умереть|наложить на себя руки)\b",
    # Arabic, Hindi, Chinese
    r"أقتل نفسي|قتل نفسي|أنهي حياتي|(?:أريد|أفكر في|طريقة|كيف) (?:أن )?(?:الانتحار|أنتحر)",
    r"أريد (?:أن أموت|الموت)",
    r"आत्महत्या (?:कर|के तरीके)|खुद को (?:मार|खत्म)|मरना चाहत|जीना नहीं चाहत|अपनी जान ले",
    r"(?:想|要|怎么|怎麼|如何|打算)[^。.?!]{0,4}(?:自杀|自殺|自尽)|不想活|我想死|结束(?:我|自己)的?生命",
)

_WEAPONS: Final = (
    rf"{_MAKE}{_ADJECTIVES} (?:{_WEAPON})",
    r"\bbomb[- ](?:making|building|recipe|instructions)\b",
    r"\bset(?:ting)? off (?:an? |the )?(?:bomb|explosives?)\b",
    r"\b(?:convert|modify|make)\b[^.?!]{0,30}\bfull(?:y)?[- ]?auto(?:matic)?\b",
    # Spanish: "bomba" is a pump, too, so it needs to stand alone or to be named
    (
        r"\b(?:hacer|hago|fabricar|fabrico|construir|construyo|armar|preparar)"
        r"(?: (?:una?|unas|el|la|los|casera|pequena))* (?:bombas?(?: (?:casera|de tubo|de clavos|"
        r"explosiva|incendiaria)|(?= ?[?.!]|$))|explosivos?|cocteles molotov|coctel molotov|granadas?|"
        r"polvora|napalm|gas (?:mostaza|sarin|nervioso)|silenciador(?:es)?)"
    ),
    (
        r"\b(?:baue?|bastel\w*|mache?|mische?|stelle)\b(?: (?:ich|man|wir|mir|eine?n?|selbst|kleine))* "
        r"(?:(?:rohr|nagel|brand|auto|splitter)?bomben?|sprengsatz|sprengstoff|molotow\w*|handgranaten?|"
        r"granaten?|schwarzpulver|schalldampfer|napalm|senfgas|sarin)\b"
    ),
    (
        r"\b(?:(?:rohr|nagel|brand|auto|splitter)?bomben?|sprengsatz|sprengstoff|molotow\S*|granaten?|"
        r"handgranaten?|schwarzpulver|schalldampfer|napalm|senfgas)(?: (?:selber|selbst|zu))* "
        r"(?:bauen|basteln|herstellen|machen|mischen|herzustellen)\b"
    ),
    (
        r"\b(?:faire|fabriquer|fabrique|fais|construire|preparer|monter)"
        r"(?: (?:une?|des|du|de|la|le|petite?|artisanale))* (?:l'|d')?(?:bombes?\b(?! (?:de bain|a eau|"
        r"a graines))|explosifs?|cocktails? molotov|grenades?|poudre noire|napalm|"
        r"gaz (?:moutarde|sarin)|silencieux|detonateur)"
    ),
    (
        r"\b(?:зробити|зібрати|виготовити|змайструвати|зроблю|роблять)(?: [^\W\d]+)? (?:бомбу(?! для ванн)|вибухівку|"
        r"вибуховий пристрій|коктейл\w* молотова|гранату|порох|напалм|зарин|глушник)"
    ),
    (
        r"\b(?:сделать|собрать|изготовить|делают)(?: [^\W\d]+)? (?:бомбу(?! для ванн)|взрывчатку|взрывное устройство|"
        r"коктейль молотова|гранату|порох|напалм|зарин|глушитель)"
    ),
    (
        r"(?:صنع|أصنع|تصنيع|اصنع|تحضير|تركيب) (?:ال)?(?:قنبلة|قنابل|متفجرات|عبوة ناسفة|مولوتوف|بارود|"
        r"غاز الأعصاب|سارين)"
    ),
    r"(?:बम|विस्फोटक|बारूद|ग्रेनेड|मोलोटोव) (?:कैसे )?(?:बना|तैयार)",
    (
        r"(?:做|制作|制造|製作|製造|自制|造|组装|配制)(?:一个|一個|个|一枚|土|简易|自制)*"
        r"(?:炸弹|炸彈|炸药|炸藥|爆炸装置|燃烧瓶|手榴弹|火药|毒气|沙林|消音器)"
    ),
    r"(?:炸弹|炸彈|炸药|燃烧瓶)(?:怎么|怎麼|如何)(?:做|制作|造)",
)

_POISONS: Final = (
    (
        rf"{_INTENT}poison (?:{_VICTIM}|him\b|her\b|them\b|an? (?:dog|cat|well)\b|the (?:well|water)\b|"
        rf"(?:his|her|their) (?:food|drink|coffee|tea|water|well|dog|cat)\b|"
        rf"(?:my |the )?neighbou?r'?s'? (?:dog|cat|well)\b)"
    ),
    rf"{_MAKE}{_ADJECTIVES} {_POISON}",
    r"\b(?:undetectable|untraceable) poison\b",
    r"\blethal dose\b[^.?!]{0,40}\b(?:person|man|woman|human|adult|someone)\b",
    r"\benvenenar a (?:alguien|una? (?:persona|hombre|mujer)|mi \w+)\b|\benvenenar el (?:pozo|agua)\b",
    (
        r"\b(?:jemanden|menschen|meine?n? (?:frau|mann|chef|nachbar\w*|ex\w*|vater|mutter|bruder|"
        r"schwester|freund\w*|familie)|den brunnen)(?: \w+)? (?:zu )?vergiften?\b"
    ),
    r"\bempoisonner (?:quelqu'un|une personne|(?:ma|mon) \w+|le puits)\b",
    r"\bотруїти (?:людину|когось|чоловіка|дружину|сусіда|криницю|колодязь)",
    r"\bотравить (?:человека|кого-то|мужа|жену|соседа|колодец)",
    r"(?:تسميم|أسمم|أسم) (?:شخص|إنسان|زوجتي|زوجي|جاري|البئر|الناس)",
    r"(?:किसी|पत्नी|पति|पड़ोसी|आदमी)[^.?!।]{0,15}ज़?हर (?:कैसे )?(?:दे|मिला)",
    r"毒死(?:一个人|一個人|别人|某人|他|她|人|我(?:老婆|老公|丈夫|妻子|邻居|老板))|(?:给|向)[^。.?!]{0,6}下毒",
)

_VIOLENCE: Final = (
    (
        rf"{_INTENT}(?:kill|murder|strangle|stab|assassinate|kidnap|torture|rape) "
        rf"(?:{_VICTIM}|him\b|her\b)"
    ),
    rf"{_INTENT}shoot {_VICTIM}(?! (?:an? |in (?:portrait|raw|low light|black)))",
    (
        r"\b(?:matar|asesinar|secuestrar) a (?:alguien|una (?:persona|mujer)|un (?:hombre|nino)|"
        r"mi (?:esposa|esposo|mujer|marido|jefe|vecino|vecina|padre|madre|hermano|ex))\b"
    ),
    (
        r"\b(?:jemanden|einen menschen|meine?n? (?:frau|mann|chef|nachbar\w*|ex\w*|vater|mutter))"
        r"(?: \w+)? (?:zu )?(?:umbringen|ermorden|toten|entfuhren)\b"
    ),
    (
        r"\b(?:tuer|assassiner|kidnapper) (?:quelqu'un|une personne|un (?:homme|enfant)|"
        r"(?:ma femme|mon (?:mari|patron|voisin|pere|frere|ex)))\b"
    ),
    r"\b(?:вбити|убити|викрасти) (?:людину|когось|чоловіка|дружину|сусіда)\b",
    r"\b(?:убить|похитить) (?:человека|кого-то|мужа|жену|соседа)\b",
    r"(?:أقتل|قتل|أخطف) (?:شخص|إنسان|زوجتي|زوجي|جاري)",
    r"(?:किसी|पत्नी|पति|पड़ोसी|आदमी)(?: इंसान| व्यक्ति)? (?:को|की) (?:कैसे )?(?:मारूं|मार डाल|हत्या|जान से मार)",
    r"(?:怎么|怎麼|如何|想|要)(?:杀|殺|谋杀|绑架)(?:死)?(?:一个|一個)?(?:人|别人|他|她|我(?:老婆|老公|丈夫|妻子|邻居|老板))",
)

_EMERGENCIES: Final = (
    (
        r"\b(?:not|isn'?t|stopped|can'?t|cannot|can not|can barely|trouble|difficulty|unable to|barely)"
        r"(?: \w+)? breath(?:e|ing)?\b"
    ),
    (
        r"\b(?:having|has|have|had|having had|suffer\w*)(?: \w+)? (?:heart attack|stroke|cardiac arrest|"
        r"seizures?|anaphyla\w+|heat ?stroke|hypothermia|allergic shock|snake ?bite|overdose)\b"
    ),
    r"\b(?:chest pains?|pain in (?:my|his|her|the|their) chest|(?:my|his|her) chest hurts)\b",
    rf"{_PERSON}[^.?!]{{0,20}}\b(?:unconscious|unresponsive|passed out|lost consciousness)\b",
    (
        rf"{_PERSON}[^.?!]{{0,20}}\b(?:not|isn'?t|won'?t|doesn'?t|stopped) "
        r"(?:respond(?:ing)?\b(?! (?:to (?:\w+ )?(?:messages?|texts?|calls?|pings?|radio)|on (?:the|my|this|any|"
        r"channel)\b|by radio))|wak(?:e|ing)(?: up)?\b|moving\b(?! (?:to|in|house)\b))"
    ),
    r"\bbleeding (?:heavily|badly|a lot|out|to death|profusely|and (?:it )?won'?t stop)\b",
    r"\b(?:bleeding|blood)\b[^.?!]{0,15}\b(?:won'?t|doesn'?t|does not|will not|not) stop(?:ping)?\b",
    r"\b(?:can'?t|cannot|won'?t|unable to) stop (?:the |his |her |my )?(?:bleeding|blood)\b",
    r"\blos(?:t|ing) (?:a lot of|much|too much) blood\b",
    (
        rf"{_PERSON}[^.?!]{{0,12}}\b(?:chok(?:ing|ed)|drown(?:ing|ed)\b(?! in (?:\w+ )?"
        r"(?:work|debt|e-?mails?))|dying\b(?! (?:to|for|of)\b)|electrocuted|overdosed)\b"
    ),
    rf"{_PERSON}[^.?!]{{0,12}}\b(?:been|got|was|is|am) (?:\w+ )?(?:shot|stabbed|trapped|buried)\b",
    r"\b(?:bitten|bit|stung) by (?:an? )?(?:\w+ )?(?:snake|viper|adder|cobra|rattlesnake|scorpion)\b",
    r"\b(?:snake|viper|adder|cobra|rattlesnake|scorpion) (?:has |just )*(?:bit|bitten|stung)\b",
    (
        r"\b(?:swallowed|drank|drunk|ate|eaten|ingested|inhaled)\b[^.?!]{0,30}\b(?:poison\w*|bleach|"
        r"anti-?freeze|detergent|button cell|battery|batteries|pesticide|ammonia|lye|gasoline|petrol|"
        r"kerosene|death cap|methanol|weed ?killer)\b"
    ),
    r"\btook (?:too many|a whole|all) [^.?!]{0,20}\b(?:pills|tablets|paracetamol|tylenol)\b",
    r"\b(?:giving birth|in labou?r|going into labou?r|her waters? (?:just )?broke)\b",
    r"\bthroat (?:is )?(?:swelling|closing)\b",
    (
        r"\b(?:this is|it'?s|it is|we have|i have|there is) an? (?:\w+ )?emergency\b(?! (?:kit|drill|plan|"
        r"contact|number|frequency|channel|room|exit|food|radio|blanket|bag|shelter)\b)|\bmedical emergency\b"
    ),
    r"(?<!does )(?<!word )(?<!\ba )\bmayday\b(?! (?:mean|procedure|call|signal|from)\b)",
    (
        r"(?<!\bdo )\b(?:i|we|he|she|they) (?:\w+ )?needs? (?:an? |urgent |immediate |some |emergency )*"
        r"(?:medical (?:help|attention|care)|medic|paramedics?|doctor(?!'?s? (?:appointment|note))|ambulance|medevac)\b"
    ),
    r"\bneed (?:an? |urgent |immediate )*(?:ambulance|medevac|medical (?:help|attention)|doctor now)\b",
    r"\bneed (?:a )?rescue(?= ?(?:[.!?,]|$|now\b|please\b|from\b|team\b))|\bcall an ambulance\b",
    r"\b(?:send (?:help(?= ?(?:[.!?,]|$|now\b|please\b|to\b))|an ambulance|rescue|a medic)|need help (?:now|fast|urgently|immediately|asap))\b",
    # What somebody writes who has no time to write.
    r"^sos\b(?! (?:in|mean|button|signal)\b)|\bsos,? sos\b|^(?:please )?help(?: ?!|,? (?:us|me) ?!)",
    (
        r"^(?:heart ?attack|stroke|seizure|snake ?bite|overdose|drowning|choking|bleeding|unconscious|"
        r"electrocuted|avalanche|emergency|please help|help,? please|(?:please )?help (?:me|us)(?: please)?)[ .!]*$"
    ),
    r"\bno pulse\b|\bheart (?:has )?stopped beating\b|\bunconscious (?:\w+ )?(?:wo)?man\b",
    r"\bunconscious (?:person|hiker|climber|child|kid|boy|girl|patient|casualty|friend)\b",
    (
        rf"{_PERSON}[^.?!]{{0,20}}\b(?:collapsed|fainted|convulsing|having convulsions|having a fit|"
        r"hypothermic|in anaphylaxis|(?:turning|turned|going) blue|(?:struck|hit) by (?:lightning|an? (?:car|truck|train|bus|boat|tree|rock|bike)))\b"
    ),
    rf"{_PERSON}(?: (?:is|are|was|am|keeps))?(?: (?:still|badly|really))? bleeding\b",
    r"\bbaby is blue\b|\bstopped shivering\b|\b(?:in|into|having) anaphyla\w+",
    r"\b(?:severe|heavy|massive|arterial) bleeding\b|\b(?:badly|seriously|severely) (?:injured|hurt|burn(?:ed|t)|wounded)\b",
    r"\bsevere burns\b|\bburn(?:ed|t) badly\b|\bblood everywhere\b|\b(?:gunshot|gun shot|bullet|stab) wounds?\b",
    r"\b(?:cut|severed) (?:an?|his|her|my|the|their) (?:artery|wrists?|throat)\b|^cut artery\b",
    r"\b(?:open|compound) fracture\b|\bbone (?:is )?(?:sticking|coming|poking) out\b",
    r"\b(?:hit|hurt) (?:his|her|my|their) head\b|\bcan'?t (?:move|feel) (?:his|her|my|their) (?:\w+ )?(?:legs?|arms?|body)\b",
    (
        rf"(?:^|{_PERSON}[^.?!]{{0,15}})\b(?:fell|fallen) (?:\d+ ?(?:m|ft|meters|metres|feet)\b|(?:off|from|down|in|into) (?:an?|the) (?:\w+ )?"
        r"(?:cliff|roof|ladder|tree|bridge|crevasse|ravine|river|well|lake|ice|horse|mountain|balcony)\b)"
    ),
    (
        r"\b(?:trapped|buried|pinned) (?:under|by|beneath|in) (?:an? |the )?(?:\w+ )?(?:tree|rocks?|rubble|snow|"
        r"avalanche|debris|car|crevasse|cave|fire|house)\b|\bavalanche\b[^.?!]{0,20}\bburied\b"
    ),
    r"\bwe(?:'re| are) trapped\b|\b(?:house|hut|cabin|tent|boat|hair|clothes) (?:is|are) on fire\b",
    r"\b(?:snake|viper|adder|cobra|rattlesnake) ?bite\b(?! kit)",
    r"\b(?:have|has|had|got|with) (?:\w+ )?(?:carbon monoxide|co|mushroom) poisoning\b|^carbon monoxide poisoning\b",
    rf"{_PERSON}[^.?!]{{0,12}}\b(?:ate|eaten|eating)\b[^.?!]{{0,15}}\bmushrooms?\b[^.?!]{{0,25}}\b(?:vomit\w*|sick|ill)\b",
    rf"{_PERSON}[^.?!]{{0,12}}\bswallowed\b[^.?!]{{0,15}}\b(?:pills|tablets|magnets?)\b",
    (
        r"\b(?:\w+'s|my|her) waters? (?:has |have |just )*(?:broke|broken)\b|\bbaby is coming\b|"
        r"\bcontractions\b[^.?!]{0,15}\bminutes?\b"
    ),
    # Spanish
    r"\bno (?:respira|puede respirar|puedo respirar|despierta|reacciona)\b|\binconsciente\b",
    r"\b(?:tiene|tengo|tuvo|dio|sufre|sufrio) un (?:infarto|derrame|ataque (?:al corazon|cardiaco))\b",
    r"\bsangra(?:ndo)? mucho\b|\bno para de sangrar\b|\bdolor (?:en el|de) pecho\b|\bsobredosis\b",
    r"\b(?:mordio|picado|mordido|pico)\b[^.?!]{0,12}\b(?:serpiente|vibora|culebra|escorpion|alacran)\b",
    r"\b(?:trago|bebio|comio|ingirio)\b[^.?!]{0,20}\b(?:veneno|lejia|cloro|pila|pastillas)\b",
    r"\bse esta (?:muriendo|ahogando|asfixiando)\b|\bes una emergencia\b",
    r"\bno (?:esta|estan) respirando\b|\b(?:no tiene|sin) pulso\b|\bse desmay\w+|\bconvulsion\w*",
    r"\bduele\b[^.?!]{0,15}\bpecho\b|\bno deja de sangrar\b|\bde parto\b|\brompio aguas\b|\bcay\w+\b[^.?!]{0,20}\bno se mueve\b",
    (
        r"\b(?:necesit\w+|llam[ae]n?|mand[ae]n?|envi[ae]n?)\b[^.?!]{0,12}\b(?:ambulancia|medico|rescate|"
        r"ayuda medica)\b|^¡? ?(?:auxilio|socorro)\b|^¡? ?ayuda ?!|^emergencia\b"
    ),
    # German
    r"\b(?:brauch\w*|ruf\w*|schick\w*)\b[^.?!]{0,15}\b(?:arzt|notarzt|krankenwagen|rettung\w*|sanitater)\b",
    r"\bschmerzen in der brust\b|\bkein(?:en)? puls\b|^(?:notfall|herzinfarkt|schlaganfall|hilfe ?!)",
    r"\b(?:er|jemand|freund\w*|kletterer|wanderer|mann|frau|kind)\b[^.?!]{0,12}\babgesturzt\b",
    r"\batmet nicht\b|\bkeine luft (?:mehr|bekommt)\b|\b(?:bekomm\w*|krieg\w*) keine luft\b",
    r"\bkann (?:\w+ )?nicht (?:mehr )?atmen\b|\bbewusstlos\b|\bwacht nicht (?:mehr )?auf\b",
    r"\bhat (?:\w+ )?einen (?:herzinfarkt|schlaganfall|krampfanfall|kreislaufstillstand)\b",
    r"\bblutet (?:sehr )?(?:stark|viel)\b|\bblut(?:ung)?[^.?!]{0,12} nicht (?:auf|stillen|stoppen)\b",
    r"\b(?:schlange|kreuzotter|viper) (?:hat )?[^.?!]{0,15}\bgebissen\b|\bbrustschmerzen\b",
    r"\b(?:verschluckt|getrunken|gegessen)\b[^.?!]{0,20}\b(?:gift|knopfzelle|bleiche)\b",
    (
        r"\b(?:gift|knopfzelle|bleichmittel|knollenblatterpilz)\b[^.?!]{0,20}"
        r"\b(?:verschluckt|getrunken|gegessen)\b"
    ),
    r"\b(?:ertrinkt|erstickt|uberdosis)\b|\b(?:das|es) ist ein notfall\b|\bmedizinischer notfall\b",
    # French
    (
        r"\bne (?:respire|reagit|se reveille) (?:pas|plus)\b|\b(?:arrive|peux|peut) (?:pas|plus) (?:a )?"
        r"respirer\b|\best inconsciente?\b"
    ),
    r"\b(?:fait|a|ai|eu) une? (?:crise cardiaque|infarctus|avc|arret cardiaque|overdose)\b",
    r"\bsaigne (?:beaucoup|enormement)\b|\bhemorragie\b|\bdouleur (?:a|dans) la poitrine\b",
    r"\bmordue? par une? (?:serpent|vipere)\b|\bs'etouffe\b|\bse noie\b|\bc'est une urgence\b",
    r"\b(?:avale|bu|mange)\b[^.?!]{0,20}\b(?:poison|javel|pile|amanite|antigel)\b",
    r"\bmal a la poitrine\b|\bpas de pouls\b|\bau secours\b|\ba l'aide ?!",
    r"\b(?:besoin|appel\w+)\b[^.?!]{0,12}\b(?:ambulance|medecin|secours|samu)\b",
    # Ukrainian, Russian
    r"\bзнепритомн|\bбол\w+ (?:у|в) грудях\b|\bболить серце\b|\bнемає пульсу\b|^(?:рятуйте\b|допоможіть ?(?:[.!,]|$))",
    r"\bпотріб\w+ (?:швидка|лікар|медик|рятувальник\w*)\b|\bвикличте (?:швидку|лікаря)\b|^допомога ?!",
    r"\bбол\w+ в груди\b|\bнет пульса\b|^(?:спасите\b|помогите ?(?:[.!,]|$))|\b(?:нужн\w+|нужен|вызовите) (?:скор\w+|врача?)\b",
    r"\bне (?:дихає|може дихати|можу дихати|прокидається|реагує)\b|\bнепритомн|\bбез свідомості\b",
    r"\bвтрати\w+ свідомість\b|\bсильн\w+ кровотеч|\bзупинити кров\b|\bстікає кров",
    r"\b(?:у нього|у неї|у мене|стався)[^.?!]{0,15}\b(?:інфаркт|інсульт|серцевий напад|напад)\b",
    r"\b(?:в|у)кусила (?:\w+ )?(?:змія|гадюка)\b|\b(?:змія|гадюка) (?:в|у)кусила\b|\bбіль у грудях\b",
    r"\b(?:проковтну\w+|випи\w+|з'ї\w+)\b[^.?!]{0,20}\b(?:отрут\w*|батарейк\w*|поганк\w*|таблет\w*)",
    r"\b(?:задихається|тоне|помирає|вмирає|передозування)\b|\bпотрібна швидка\b",
    r"\bне (?:дышит|может дышать|могу дышать|просыпается)\b|\bбез сознания\b|\bпотеря\w+ сознание\b",
    r"\bсильное кровотечение\b|\bостановить кровь\b|\bукусила змея\b|\bзмея укусила\b|\bу него инфаркт\b",
    # Arabic
    r"(?:لا|ما) (?:يتنفس|تتنفس)|لا (?:أستطيع|يستطيع|تستطيع) التنفس|فاقدة? الوعي|فقدت? الوعي",
    r"(?:يعاني|أصيب|لديه|عنده|عندي)[^.?!؟]{0,15}(?:نوبة قلبية|جلطة|سكتة)|ألم في الصدر",
    r"نزيف (?:حاد|شديد)|ينزف (?:بشدة|كثيرا)|(?:لدغ|عض)\w* (?:ثعبان|أفعى|عقرب|حية)|جرعة زائدة",
    r"ابتلع[^.?!؟]{0,20}(?:سم|بطارية|كلور|مبيد)|يختنق|يغرق|حالة (?:طارئة|طوارئ)",
    r"(?:فقد|فقدت) (?:وعيه|وعيها)|(?:مغمى|أغمي) عليه|ألم (?:شديد )?في (?:ال)?صدر|نوبة قلبية|إسعاف(?!ات)|النجدة",
    # Hindi
    r"सीने में[^।.?!]{0,10}दर्द|खून (?:बंद|रुक) नहीं|ए(?:म्|ं)बुलेंस|बचाओ|नब्ज़? नहीं",
    r"(?:सांस|साँस) नहीं|बेहोश|दिल का दौरा|सीने में दर्द|बहुत खून|खून (?:नहीं रुक|बह रहा)|दम घुट",
    r"(?:सांप|साँप) ने (?:काट|डस)|ज़?हर (?:खा|पी|निगल)|डूब रह|मर रह[ाी]",
    # Chinese
    r"[不没沒]呼吸|[昏晕暈]倒|血流不止|救命(?!恩人|稻草)|(?:需要|叫)[^。.?!]{0,3}(?:救护车|救護車|医生(?!证)|醫生(?!證))|没有?脉搏",
    r"(?:没有?|沒有?|停止)呼吸|(?:不能|无法|無法)呼吸|呼吸困难|呼吸困難|昏迷|失去意[识識]|不省人事",
    r"心脏病发|心臟病發|心肌梗[塞死]|大出血|流血不止|止不住血|血止不住|被(?:毒)?蛇咬|窒息|噎住|溺水",
    r"误服|吞了?[^。.?!]{0,4}(?:毒|电池|漂白)|中毒了|快死了|快不行了|服药过量|胸[口部]?(?:很|剧)?痛",
)

#: In the order in which they are looked for.
PATTERNS: Final = (
    ("self_harm", _SELF_HARM),
    ("weapon", _WEAPONS),
    ("poison", _POISONS),
    ("violence", _VIOLENCE),
    ("emergency", _EMERGENCIES),
)

#: What a refused question is answered with, by language. Each fits into one message.
LINES: Final[dict[str, dict[str, str]]] = {
    "refused": {
        "en": "I do not help with weapons, poisons or harming anyone.",
        "es": "No ayudo con armas, venenos ni con dañar a nadie.",
        "de": "Bei Waffen, Giften oder Gewalt helfe ich nicht.",
        "fr": "Je n'aide pas avec les armes, les poisons ou la violence.",
        "uk": "Я не допомагаю зі зброєю, отрутою чи насильством.",
        "ru": "Я не помогаю с оружием, ядами и насилием.",
        "ar": "لا أساعد في الأسلحة أو السموم أو إيذاء أحد.",
        "hi": "मैं हथियार, ज़हर या हिंसा में मदद नहीं करता।",
        "zh": "我不协助武器、毒药或伤害他人的事。",
    },
    "self_harm": {
        "en": "I am only a machine, but you matter. Please tell a person near you now, "
        "and get away from anything that could harm you.",
        "es": "Solo soy una máquina, pero tú importas. Habla ya con alguien cercano "
        "y aléjate de lo que pueda dañarte.",
        "de": "Ich bin nur eine Maschine, aber du bist wichtig. Sprich bitte jetzt mit jemandem "
        "in deiner Nähe und geh weg von allem, was dir schaden kann.",
        "fr": "Je ne suis qu'une machine, mais tu comptes. Parle maintenant à quelqu'un près de "
        "toi et éloigne-toi de ce qui peut te blesser.",
        "uk": "Я лише машина, але ти важливий людям. Скажи комусь поруч просто зараз.",
        "ru": "Я только машина, но ты важен людям. Скажи кому-нибудь рядом прямо сейчас.",
        "ar": "أنا مجرد آلة، لكنك مهم. تحدث الآن إلى شخص قريب منك وابتعد عما قد يؤذيك.",
        "hi": "मैं बस एक मशीन हूँ, पर आप अहम हैं। अभी पास के किसी से बात करें।",
        "zh": "我只是机器,但你很重要。请现在就告诉身边的人,并远离可能伤害你的东西。",
    },
}
