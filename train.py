"""Command line: python train.py fit --config configs/train/demo.yaml --data.path data/demo trains a diffusion prior."""

import sys

from clip2latent.cli_train import main

if __name__ == "__main__":
    sys.exit(main())
