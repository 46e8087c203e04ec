"""Trains a diffusion prior: python train.py fit --config configs/train/demo.yaml --data.path data/demo."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import CSVLogger

from clip2latent.callbacks import PriorAverage, PromptValidation, checkpoints, score_name
from clip2latent.data import LatentPairs
from clip2latent.training import PriorTraining


class Parser(LightningArgumentParser):
    """A parser that reports a wrong option in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises what the caller prints."""
        raise ValueError(" ".join(str(message).split())) from ex


class SaveConfig(SaveConfigCallback):
    """Saves the configuration in the run's folder and with every logger."""

    def save_config(self, trainer: Trainer, *_: Any) -> None:
        """Hands the configuration to the loggers."""
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config.as_dict())


class TrainCLI(LightningCLI):
    """LightningCLI with the callbacks every training has, configured as --average.* and --validation.*"""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the subcommands that make sense for a prior."""
        return {name: skip for name, skip in LightningCLI.subcommands().items() if name in ("fit", "validate")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the callbacks' options and ties together what must agree."""
        parser.add_lightning_class_args(PriorAverage, "average")
        parser.add_lightning_class_args(PromptValidation, "validation")
        parser.link_arguments("data.dataset", "model.dataset", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "model.seed", compute_fn=int)
        parser.set_defaults({"trainer.default_root_dir": "runs/prior", "trainer.val_check_interval": 1000})

    def before_instantiate_classes(self) -> None:
        """Refuses to write over another run, and lets the last validation fall on the last step."""
        config = self.config[self.subcommand]
        folder = Path(config.trainer.default_root_dir)
        if self.subcommand == "fit" and not config.ckpt_path and (folder / "last.ckpt").exists():
            raise ValueError(
                f"{folder} holds a run already: go on with it by --ckpt_path last, or name another folder with"
                " --trainer.default_root_dir"
            )
        interval, last = config.trainer.val_check_interval, config.trainer.max_steps
        if isinstance(interval, int) and 0 < last < interval:
            config.trainer.val_check_interval = last

    def instantiate_trainer(self, **_: Any) -> Trainer:
        """Builds the trainer with its checkpoints and a CSV log in the run's folder, beside any other logger."""
        config = self.config_init[self.subcommand]
        folder = config.trainer.default_root_dir
        loggers = config.trainer.logger
        loggers = loggers if isinstance(loggers, list) else [loggers] if hasattr(loggers, "log_metrics") else []
        scales = config.validation.guidance
        by_prompts = (score_name(scales[0]), "max")
        self.saved = checkpoints(folder, *(by_prompts if config.validation.prompts_file else ("val/loss", "min")))
        callbacks = [*(config.trainer.callbacks or []), *self.saved]
        return super().instantiate_trainer(logger=[CSVLogger(folder, "", ""), *loggers], callbacks=callbacks)

    def after_fit(self) -> None:
        """Prints where the result is."""
        if self.trainer.is_global_zero and self.saved[0].best_model_path:
            best = self.saved[0]
            print(f"best checkpoint ({best.monitor} {float(best.best_model_score):.4f}): {Path(best.best_model_path)}")


def main(args: list[str] | None = None) -> int:
    """Runs the command line; returns 2 after a user's error, reported in one line."""
    for expected in (
        ".*exists and is not empty.*",
        ".*your dataloader is not resumable.*",  # the order is a function of the step: it is
    ):
        warnings.filterwarnings("ignore", expected)
    try:
        TrainCLI(
            PriorTraining,
            LatentPairs,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            parser_class=Parser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
