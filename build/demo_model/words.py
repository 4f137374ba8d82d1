"""The words that fill the slots: who may be in a story, and where.

The lists are blocks of text, because that is how words are read and added to.
"""
# ruff: noqa: SIM905

BEE_NAMES = """Hazel Clover Poppy Willow Daisy Rosie Juniper Tansy Maple Ivy Fern Olive Pip Nettie
Honey Saffron Dot Bea Mimi Lily Heather Bryony Linnet Flora Tilly Wren Ginger Pearl Suki Amber Penny
Lotte Minna Zita Nell Bibi Romy Vera Twyla Nora Melly Sunny Fay Beth Dora Luna Ruby Stella Maya
Zelda Betty Molly Greta""".split()

ELDER_NAMES = "Marigold Agatha Sage Beatrice Matilda Wilma Martha Rosemary Ottilie Edith".split()

DRONE_NAMES = """Barnaby Basil Dudley Oscar Bruno Gus Rufus Otto Wilbur Hugo Bertie Casper Ferdinand
Monty Archie Theo Ned Felix Humphrey Albert Boris Walter""".split()

GIRLS = """Anna Emma Lucy Mia Sofia Clara Lena Alice Ella Ada Grace Sarah Julia Marie Laura Nina
Eva Hannah Zoe Ruth Amy Kate Maria Carla Sandra Jane Mary Lisa Yuki Fatima Priya""".split()

BOYS = """Tom Ben Max Paul Leo Finn Sam Jack Peter Vince Noah Tim Jonas David Martin Daniel Linus
Alan John James Karl Henry Erik Adam Luke Oliver Bob Omar Kenji Ravi Mark""".split()

COMMON_TRAITS = """brave happy curious clever kind sad lonely hungry tired young old tiny friendly
funny clumsy shy angry grumpy cheerful gentle quick slow strong fluffy golden busy lucky wise silly
fearless polite stubborn quiet loud magical purple blue green striped round fat thin strange famous
forgetful honest jealous jolly lost nervous playful proud sleepy sweet thoughtful wild""".split()

HOMES = """in a hollow oak
in a hollow tree
in an old pear tree
in a straw basket under the roof
in a blue box at the end of the orchard
in a white box by the garden wall
in a yellow box on a hill
on a hill by the river
under the roof of an old barn
in the wall of an old mill
on the roof of a tall house
behind a stone wall in the sun
at the edge of the forest
in a green box among the roses
on a farm by the lake""".splitlines()

PLACES = """meadow
orchard
clover field
rose garden
valley
apple orchard
park
kitchen garden
vineyard
big meadow
wild garden
herb garden""".splitlines()

LANDMARKS = """the old mill
the stone bridge
the pond
the garden wall
the crooked fence
the three pines
the church
the red barn
the old well
the great oak
the stream
the little house
the tall hedge
the castle
the broken cart""".splitlines()

FLOWERS = {
    "foxglove": "foxgloves",
    "poppy": "poppies",
    "bluebell": "bluebells",
    "daisy": "daisies",
    "thistle": "thistles",
    "sunflower": "sunflowers",
    "rose": "roses",
    "buttercup": "buttercups",
    "primrose": "primroses",
    "cornflower": "cornflowers",
    "lily": "lilies",
    "dandelion": "dandelions",
    "violet": "violets",
    "pansy": "pansies",
    "clover flower": "clover flowers",
    "tulip": "tulips",
}

CREATURES = """snail beetle ladybird frog mouse spider butterfly grasshopper caterpillar cricket
hedgehog toad lizard worm fly sparrow""".split()

# One, and several; what has only one form says so twice.
TOPICS = """computer, computers
car, cars
telephone, telephones
graphics card, graphics cards
train, trains
mountain, mountains
language model, language models
number, numbers
rocket, rockets
planet, planets
king, kings
war, wars
football, football
music, music
money, money
book, books
city, cities
school, schools
window, windows
house, houses
fish, fish
tiger, tigers
bicycle, bicycles
piano, pianos
cake, cakes
pizza, pizza
sandwich, sandwiches
film, films
shoe, shoes
ship, ships
robot, robots
star, stars
dinosaur, dinosaurs
bridge, bridges
server, servers
network, networks
program, programs
Python program, Python programs
function, functions
game, games
river, rivers
doctor, doctors
lawyer, lawyers
phone, phones
clock, clocks
cat, cats
dog, dogs
horse, horses
cloud, clouds
GPU, GPUs
CPU, CPUs
battery, batteries
machine, machines
camera, cameras
map, maps
poem, poems
letter, letters
word, words
ghost, ghosts
dream, dreams
love, love
life, life
science, science
physics, physics
history, history
art, art""".splitlines()

LANDS = """France Spain Italy Germany England Japan China India Canada Brazil Egypt Norway Sweden
Poland Mexico Greece Peru Kenya Ireland Australia America Berlin Paris London Rome Vienna Africa
Europe""".split()

NUMBERS = "1 2 3 4 5 6 7 8 9 10 12 15 17 20 25 30 42 64 100 128 256 1000 two three five".split()

NOISES = """test asdf foo bar lorem ipsum qwerty xyz blah abc hmm ... ??? !!! 123 ok yes no what
testing la""".split()

VISITORS = """a dragon
a small robot
a lost balloon
a robot
a cat
a dog
a bear
a small bear
a fox
a mouse
a little mouse
a hedgehog
a frog
a toad
a snail
a wizard
a witch
a fairy
a giant
a knight
a pirate
a princess
a king
a cloud
a star
a fallen star
a snowman
a ghost
a little ghost
a dinosaur
a unicorn
a monster
a friendly monster
an elephant
a lion
a tiger
a rabbit
a bird
a sparrow
an owl
an ant
a spider
a butterfly
a caterpillar
a worm
a fish
a duck
a goose
a cow
a horse
a donkey
a sheep
a goat
a pig
a chicken
a squirrel
a wolf
a deer
a mole
a bat
a turtle
a penguin
a whale
a monkey
a parrot
an alien
an old car
a train
a ship
a spaceship
an astronaut
a computer
a clock
a teapot
a shoe
an umbrella
a hat
a kite
a paper boat
a doll
a toy soldier
a pumpkin
an apple
a potato
a tree
a stone
a scarecrow
a gnome
a troll
a mermaid
a vampire
a cowboy
a farmer
a baker
a doctor
a teacher
a clown
a painter
a programmer
an engineer
a sailor
a musician
a detective
a ladybird
a beetle
a grasshopper
a dragonfly
a cricket
a wasp
a fly
a crab
a fish in a bowl
a blue cat
a purple dragon
a red fox
a green frog
a grey wolf
a black cat
a white horse
a golden fish
a tiny elephant
a sad clown
a lonely star
a happy dog
a sleepy bear
an old owl
a silver spoon
a broken clock
a llama
a crow
a raven
a kitten
a puppy
a baby bird""".splitlines()
