"""Trains the judge of classes: `python -m demo.class_judge --work DIR --out clip2latent/assets/demo-class-judge`.

The avatars' judge in all but what it reads: the one object's class, its colour and its ground.
"""

from demo import single_objects
from demo.judge import main

if __name__ == "__main__":
    main(single_objects)
