"""The words that decide whether two texts ask the same, as literal tables (English)."""


def _words(text: str) -> list[str]:
    return text.split()


STOP_WORDS = frozenset(
    _words("""a an the this that these those of in on at to for from by with as and or is are was were be been being
    am do does did done has have had having will would shall should can could may might must it its it's he she
    they them his her hers their theirs him we us our you your i me my mine who whom whose which what when where
    why how if then than so such there here also just only very too into onto over under out up down off about
    again further once both each s t re ve ll d m find calculate compute determine evaluate question following
    choose select answer correct please given let suppose show explain step steps think statement statements
    solve problem option options provide best describes called referred known say tell us""")
)

NEGATIONS = frozenset(
    _words("""not no never none neither nor cannot without except unless incorrect false untrue wrong isn aren doesn don
    didn wasn weren can't couldn wouldn shouldn won hasn haven hadn unlikely impossible non excluding
    lacks lacking fails""")
)

_PAIRS = """more fewer|more less|most least|most fewest|largest smallest|larger smaller|greater less|greater smaller
greatest least|greatest smallest|increase decrease|increases decreases|increased decreased|increasing decreasing
before after|above below|maximum minimum|maximize minimize|highest lowest|higher lower|longest shortest
longer shorter|hot cold|hotter colder|hottest coldest|warmer cooler|heaviest lightest|heavier lighter
tallest shortest|taller shorter|oldest youngest|older younger|fastest slowest|faster slower|first last
odd even|left right|north south|east west|positive negative|true false|correct incorrect|likely unlikely
possible impossible|same different|inside outside|internal external|always never|buy sell|buys sells
bought sold|gain lose|gains loses|gained lost|win lose|wins loses|won lost|earn spend|earns spends
earned spent|early late|earlier later|earliest latest|begin end|begins ends|start finish|starts stops|open closed
up down|upper lower|top bottom|upward downward|ascending descending|add subtract|adds subtracts|added subtracted
added removed|multiply divide|multiplied divided|sum difference|sum product|product quotient|numerator denominator
row column|rows columns|horizontal vertical|parallel perpendicular|clockwise counterclockwise|acute obtuse
convex concave|mean median|area perimeter|radius diameter|sine cosine|sin cos|sin tan|cos tan|log ln|male female
boy girl|boys girls|man woman|men women|mother father|husband wife|brother sister|acid base|acidic basic
acids bases|anode cathode|cation anion|proton electron|protons electrons|reactant product|reactants products
oxidation reduction|oxidized reduced|endothermic exothermic|dominant recessive|predator prey|plant animal
plants animals|artery vein|arteries veins|supply demand|import export|imports exports|domestic foreign
winter summer|day night|solid liquid|liquid gas|solid gas|strong weak|stronger weaker|strongest weakest|light dark
old new|good bad|best worst|better worse|rich poor|advantage disadvantage|advantages disadvantages|benefit cost
include exclude|includes excludes|including excluding|accept reject|agree disagree|cause effect|legal illegal
necessary unnecessary|sufficient insufficient|with without|direct inverse|directly inversely|input output
stable unstable|equal unequal|renewable nonrenewable|living nonliving|reversible irreversible|expand contract
absorb emit|absorbs emits|absorbs releases|push pull|attract repel|rise fall|rises falls|rising falling
prime composite|rational irrational|finite infinite|real imaginary|mass weight|speed velocity|major minor
per total|remaining total|left total|profit loss|wide narrow|deep shallow|thick thin|full empty|long short
big small|large small|many few|high low|hard soft|heavy light|fast slow|wet dry|near far|front back
union intersection|injective surjective|open close|active passive|primary secondary|afferent efferent
systolic diastolic|anterior posterior|superior inferior|medial lateral|proximal distal|dorsal ventral"""
OPPOSITES = frozenset(
    frozenset(pair.split()) for line in _PAIRS.splitlines() for pair in line.split("|")
)
OPPOSED = frozenset(word for pair in OPPOSITES for word in pair)

QUANTIFIERS = {
    "all": "all", "every": "all", "each": "all", "always": "all", "entire": "all", "some": "some",
    "any": "some", "sometimes": "some", "several": "some", "most": "most", "many": "many",
    "usually": "most", "only": "only", "exclusively": "only", "solely": "only", "exactly": "exactly",
    "least": "least", "both": "both", "either": "either", "between": "between",
}  # fmt: skip

_UNITS = """metre meter metres meters m|kilometre kilometer kilometres kilometers km|centimetre centimeter centimetres
centimeters cm|millimetre millimeter millimetres millimeters mm|nanometer nanometers nm|mile miles mi|yard yards yd
foot feet ft|inch inches|gram grams g|kilogram kilograms kg|milligram milligrams mg|pound pounds lb lbs|ounce ounces oz
ton tons tonne tonnes|litre liter litres liters l|millilitre milliliter millilitres milliliters ml|gallon gallons
quart quarts|pint pints|cup cups|tablespoon tablespoons|teaspoon teaspoons|second seconds sec|minute minutes min mins
hour hours hr hrs|day days|week weeks|month months|year years|decade decades|century centuries|dollar dollars
cent cents|euro euros|penny pennies|percent percentage|degree degrees|radian radians|celsius|fahrenheit|kelvin
joule joules j|kilojoule kilojoules kj|calorie calories|watt watts w|kilowatt kilowatts kw|volt volts v|ampere amperes amps
ohm ohms|newton newtons n|pascal pascals pa|kilopascal kpa|atm atmosphere atmospheres|hertz hz|mole moles mol
square|cubic|kmh|mph"""
UNITS = {"%": "percent"} | {
    word: names.split()[0]
    for line in _UNITS.splitlines()
    for names in line.split("|")
    for word in names.split()
}
# As often variables or other words: units only right after a number.
SHORT_UNITS = frozenset(word for word in UNITS if len(word) <= 2) | {
    "second",
    "square",
    "pound",
    "foot",
    "yard",
}

OPERATORS = frozenset(
    _words(
        "+ - * / ^ = < > ≤ ≥ ≠ ! | ° √ ∫ ∑ ∩ ∪ ± sqrt sin cos tan cot sec csc log ln lim sum prod int mod"
    )
)
