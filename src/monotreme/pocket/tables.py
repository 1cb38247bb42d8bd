"""What the pocket world knows, as plain tables: one line an entity, one column a relation.

Every prose passage and every science question is made from these lines, so that a question
asks for something the base has read, though never as that question. A dash means "nothing to say".
"""

ANIMALS = """
name       | kind      | covering  | home         | food      | moves    | young       | size
cow        | mammal    | hair      | farms        | grass     | walks    | calf        | 8
dog        | mammal    | fur       | houses       | meat      | runs     | puppy       | 5
cat        | mammal    | fur       | houses       | mice      | creeps   | kitten      | 4
horse      | mammal    | hair      | stables      | hay       | gallops  | foal        | 8
sheep      | mammal    | wool      | meadows      | grass     | walks    | lamb        | 6
goat       | mammal    | hair      | mountains    | leaves    | climbs   | kid         | 6
pig        | mammal    | bristles  | farms        | roots     | walks    | piglet      | 6
hen        | bird      | feathers  | farms        | seeds     | walks    | chick       | 4
duck       | bird      | feathers  | ponds        | weeds     | paddles  | duckling    | 4
goose      | bird      | feathers  | lakes        | grass     | paddles  | gosling     | 4
swan       | bird      | feathers  | lakes        | weeds     | glides   | cygnet      | 5
owl        | bird      | feathers  | forests      | mice      | flies    | owlet       | 4
eagle      | bird      | feathers  | mountains    | rabbits   | soars    | eaglet      | 5
penguin    | bird      | feathers  | the ice      | fish      | waddles  | chick       | 5
sparrow    | bird      | feathers  | hedges       | seeds     | hops     | nestling    | 3
parrot     | bird      | feathers  | jungles      | nuts      | flies    | -           | 4
ostrich    | bird      | feathers  | grasslands   | roots     | runs     | chick       | 7
trout      | fish      | scales    | rivers       | flies     | swims    | fry         | 4
salmon     | fish      | scales    | rivers       | shrimps   | leaps    | fry         | 5
shark      | fish      | scales    | the sea      | fish      | swims    | pup         | 8
carp       | fish      | scales    | ponds        | worms     | swims    | fry         | 4
tuna       | fish      | scales    | the sea      | squid     | swims    | -           | 6
whale      | mammal    | bare skin | the sea      | krill     | dives    | calf        | 9
dolphin    | mammal    | bare skin | the sea      | fish      | leaps    | calf        | 7
seal       | mammal    | fur       | the ice      | fish      | dives    | pup         | 7
bat        | mammal    | fur       | caves        | moths     | flies    | pup         | 2
mouse      | mammal    | fur       | fields       | grain     | scurries | pinkie      | 2
rabbit     | mammal    | fur       | burrows      | carrots   | hops     | kit         | 3
fox        | mammal    | fur       | forests      | rabbits   | trots    | cub         | 5
wolf       | mammal    | fur       | forests      | deer      | runs     | pup         | 6
bear       | mammal    | fur       | forests      | berries   | climbs   | cub         | 8
lion       | mammal    | fur       | grasslands   | zebras    | stalks   | cub         | 7
tiger      | mammal    | fur       | jungles      | deer      | stalks   | cub         | 7
elephant   | mammal    | bare skin | grasslands   | leaves    | walks    | calf        | 9
camel      | mammal    | hair      | deserts      | thorns    | walks    | calf        | 8
monkey     | mammal    | fur       | jungles      | bananas   | climbs   | infant      | 5
kangaroo   | mammal    | fur       | grasslands   | grass     | hops     | joey        | 7
koala      | mammal    | fur       | gum trees    | leaves    | climbs   | joey        | 4
mole       | mammal    | fur       | tunnels      | worms     | digs     | pup         | 3
hedgehog   | mammal    | spines    | hedges       | slugs     | shuffles | hoglet      | 3
beaver     | mammal    | fur       | streams      | bark      | paddles  | kit         | 5
deer       | mammal    | hair      | forests      | leaves    | leaps    | fawn        | 7
squirrel   | mammal    | fur       | trees        | nuts      | climbs   | kit         | 3
otter      | mammal    | fur       | streams      | fish      | dives    | pup         | 5
frog       | amphibian | wet skin  | ponds        | flies     | hops     | tadpole     | 2
toad       | amphibian | wet skin  | gardens      | slugs     | crawls   | tadpole     | 2
newt       | amphibian | wet skin  | ponds        | worms     | crawls   | eft         | 2
snake      | reptile   | scales    | deserts      | eggs      | slithers | snakelet    | 4
lizard     | reptile   | scales    | rocks        | insects   | scurries | hatchling   | 3
crocodile  | reptile   | scales    | swamps       | zebras    | crawls   | hatchling   | 8
tortoise   | reptile   | a shell   | deserts      | weeds     | crawls   | hatchling   | 4
turtle     | reptile   | a shell   | the sea      | jellyfish | swims    | hatchling   | 6
bee        | insect    | hair      | hives        | nectar    | flies    | larva       | 1
ant        | insect    | a shell   | nests        | crumbs    | marches  | larva       | 1
butterfly  | insect    | scales    | gardens      | nectar    | flutters | caterpillar | 1
moth       | insect    | scales    | woods        | nectar    | flutters | caterpillar | 1
beetle     | insect    | a shell   | logs         | wood      | crawls   | grub        | 1
cricket    | insect    | a shell   | fields       | grass     | hops     | nymph       | 1
"""

THINGS = """
name       | material  | use                 | place       | group
hammer     | metal     | driving nails       | workshop    | tool
saw        | steel     | cutting wood        | workshop    | tool
spade      | metal     | digging holes       | garden      | tool
rake       | metal     | gathering leaves    | garden      | tool
drill      | steel     | making holes        | workshop    | tool
spanner    | steel     | turning bolts       | garage      | tool
axe        | steel     | splitting logs      | woodshed    | tool
needle     | steel     | sewing cloth        | sewing box  | tool
knife      | steel     | slicing bread       | drawer      | tool
pot        | metal     | boiling soup        | kitchen     | dish
cup        | china     | drinking tea        | kitchen     | dish
plate      | china     | serving food        | kitchen     | dish
bottle     | glass     | holding water       | cellar      | dish
bowl       | china     | mixing dough        | kitchen     | dish
coat       | wool      | keeping warm        | wardrobe    | garment
shirt      | cotton    | dressing up         | wardrobe    | garment
scarf      | wool      | warming the neck    | hall        | garment
glove      | leather   | warming the hand    | hall        | garment
shoe       | leather   | walking             | hall        | garment
sock       | cotton    | warming the foot    | bedroom     | garment
chair      | wood      | sitting             | dining room | furniture
table      | wood      | eating meals        | dining room | furniture
bed        | wood      | sleeping            | bedroom     | furniture
shelf      | wood      | storing books       | library     | furniture
sofa       | leather   | resting             | living room | furniture
window     | glass     | letting in light    | wall        | -
mirror     | glass     | seeing your face    | bathroom    | -
candle     | wax       | lighting a room     | church      | -
towel      | cotton    | drying the body     | bathroom    | -
soap       | oil       | washing the hands   | bathroom    | -
tyre       | rubber    | rolling on roads    | garage      | -
ball       | rubber    | playing games       | playground  | -
book       | paper     | reading             | library     | -
newspaper  | paper     | learning the news   | shop        | -
umbrella   | cloth     | staying dry         | hall        | -
kite       | cloth     | catching the wind   | park        | -
wire       | copper    | carrying current    | wall        | -
coin       | metal     | paying              | purse       | -
ring       | gold      | showing marriage    | jewel box   | -
bucket     | plastic   | carrying sand       | beach       | -
toothbrush | plastic   | cleaning teeth      | bathroom    | -
comb       | plastic   | tidying hair        | bathroom    | -
rope       | fibre     | tying boats         | harbour     | -
brick      | clay      | building houses     | wall        | -
violin     | wood      | playing tunes       | concert     | instrument
drum       | skin      | beating time        | parade      | instrument
trumpet    | brass     | blowing fanfares    | parade      | instrument
flute      | silver    | playing high notes  | concert     | instrument
piano      | wood      | playing chords      | concert     | instrument
car        | metal     | driving to work     | garage      | vehicle
bicycle    | metal     | pedalling           | street      | vehicle
boat       | wood      | crossing lakes      | harbour     | vehicle
train      | metal     | travelling on rails | station     | vehicle
plane      | metal     | crossing oceans     | airport     | vehicle
"""

FOODS = """
name        | kind      | colour | grows            | taste
apple       | fruit     | red    | on a tree        | sweet
pear        | fruit     | green  | on a tree        | sweet
plum        | fruit     | purple | on a tree        | sweet
cherry      | fruit     | red    | on a tree        | sweet
lemon       | fruit     | yellow | on a tree        | sour
orange      | fruit     | orange | on a tree        | sweet
banana      | fruit     | yellow | on a palm        | sweet
grape       | fruit     | purple | on a vine        | sweet
melon       | fruit     | green  | on the ground    | sweet
strawberry  | fruit     | red    | on the ground    | sweet
blueberry   | fruit     | blue   | on a bush        | sour
gooseberry  | fruit     | green  | on a bush        | sour
coconut     | nut       | brown  | on a palm        | mild
walnut      | nut       | brown  | on a tree        | bitter
hazelnut    | nut       | brown  | on a bush        | mild
almond      | nut       | brown  | on a tree        | bitter
carrot      | vegetable | orange | under the ground | sweet
potato      | vegetable | brown  | under the ground | mild
onion       | vegetable | white  | under the ground | sharp
radish      | vegetable | red    | under the ground | sharp
beetroot    | vegetable | purple | under the ground | sweet
pea         | vegetable | green  | in a pod         | sweet
bean        | vegetable | green  | in a pod         | mild
lentil      | vegetable | brown  | in a pod         | mild
cabbage     | vegetable | green  | on the ground    | bitter
spinach     | vegetable | green  | on the ground    | bitter
pumpkin     | vegetable | orange | on the ground    | mild
wheat       | grain     | yellow | on a stalk       | mild
barley      | grain     | yellow | on a stalk       | mild
oat         | grain     | white  | on a stalk       | mild
maize       | grain     | yellow | on a cob         | sweet
rice        | grain     | white  | on a stalk       | mild
mint        | herb      | green  | in a herb bed    | sharp
basil       | herb      | green  | in a herb bed    | sharp
pepper      | spice     | black  | on a vine        | sharp
cinnamon    | spice     | brown  | in bark          | sweet
"""

JOBS = """
name        | place      | work              | tool
baker       | bakery     | baking bread      | oven
teacher     | school     | giving lessons    | blackboard
doctor      | hospital   | healing the sick  | stethoscope
farmer      | farm       | growing crops     | tractor
sailor      | ship       | steering by stars | compass
pilot       | cockpit    | flying planes     | radar
painter     | studio     | making pictures   | brush
carpenter   | workshop   | shaping wood      | plane
smith       | forge      | shaping iron      | anvil
tailor      | tailor shop | making suits     | needle
cook        | kitchen    | cooking meals     | pan
fisherman   | boat       | catching fish     | net
miner       | mine       | digging coal      | pickaxe
gardener    | garden     | planting flowers  | spade
barber      | barber shop | cutting hair     | scissors
dentist     | surgery    | mending teeth     | drill
butcher     | meat shop  | cutting meat      | cleaver
judge       | court      | deciding cases    | gavel
soldier     | fort       | guarding the land | shield
firefighter | fire house | putting out fires | hose
librarian   | library    | lending books     | catalogue
astronomer  | observatory | watching stars   | telescope
shepherd    | hillside   | minding sheep     | crook
potter      | pottery    | shaping clay      | wheel
weaver      | mill       | making cloth      | loom
postman     | post office | bringing letters | mailbag
plumber     | cellar     | mending pipes     | wrench
conductor   | concert hall | leading music   | baton
"""

MATERIALS = """
name     | source         | feel     | use
wood     | trees          | rough    | furniture
wool     | sheep          | soft     | sweaters
silk     | silkworms      | smooth   | dresses
leather  | cow hides      | tough    | boots
cotton   | cotton plants  | soft     | shirts
paper    | wood pulp      | thin     | books
glass    | melted sand    | brittle  | windows
iron     | ore            | hard     | bridges
gold     | river gravel   | heavy    | rings
rubber   | tree sap       | springy  | tyres
plastic  | oil            | light    | bags
clay     | river banks    | sticky   | bricks
wax      | bee hives      | slippery | candles
cork     | oak bark       | light    | stoppers
marble   | quarries       | cold     | statues
salt     | sea water      | grainy   | seasoning
chalk    | sea shells     | powdery  | writing
copper   | ore            | bendy    | wires
"""

BODY = """
name    | job                 | where
heart   | pumping blood       | in the chest
lungs   | breathing air       | in the chest
stomach | digesting food      | in the belly
brain   | thinking            | in the skull
skin    | sensing touch       | all over the body
eyes    | seeing light        | in the face
ears    | hearing sounds      | beside the face
nose    | smelling            | in the face
tongue  | tasting             | in the mouth
teeth   | chewing             | in the mouth
bones   | holding the body up | under the muscles
muscles | pulling on bones    | under the skin
kidneys | cleaning the blood  | in the back
knees   | bending the legs    | in the legs
elbows  | bending the arms    | in the arms
lashes  | keeping out dust    | above the eyes
"""

SKY = """
name    | look
Mercury | small and grey
Venus   | bright and cloudy
Earth   | blue and green
Mars    | red and dusty
Jupiter | striped and huge
Saturn  | yellow and ringed
Uranus  | pale and green
Neptune | dark and blue
"""

GAUGES = """
name        | measures
thermometer | temperature
clock       | time
ruler       | length
balance     | weight
barometer   | air pressure
speedometer | speed
rain gauge  | rainfall
wind vane   | wind direction
sundial     | the hour
jug         | volume
protractor  | angles
odometer    | distance
"""

WEATHER = """
name      | cause                 | brings
rain      | falling drops         | puddles
snow      | frozen crystals       | white fields
hail      | frozen drops          | broken glass
fog       | low clouds            | poor sight
wind      | moving air            | waves
lightning | electric sparks       | thunder
frost     | freezing dew          | icy grass
rainbow   | sunlight in raindrops | bright colours
drought   | months without rain   | dry fields
flood     | overflowing rivers    | wet cellars
"""


def words(line: str) -> tuple[str, ...]:
    """The words of a line, so that lists of words stay readable."""
    return tuple(line.split())


NAMES = words(
    "Ada Anna Ben Bella Carl Cora Dan Dora Eli Emma Finn Fay Gus Gina Hugo Hana Ivan Ida Jack Jane "
    "Karl Kate Leo Lily Max Mia Ned Nora Otto Olga Paul Pia Ralf Rosa Sam Sara Tom Tina Uwe Una "
    "Vic Vera Will Wanda Yan Yara Zac Zoe"
)
