"""The commands of train.py: fit, validate and test of a diffusion prior, by LightningCLI."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.plugins.environments import SLURMEnvironment

from clip2latent.average import PriorAverage
from clip2latent.data import LatentPairs
from clip2latent.launch import launched
from clip2latent.leaving import LeaveOnSignal, Left
from clip2latent.metrics_file import MetricsFile
from clip2latent.prompt_validation import PromptValidation, score_name
from clip2latent.saving import BEST, LAST, Checkpoints, WholeFiles
from clip2latent.training import PriorTraining
from clip2latent.training_progress import Speed, TrainingBar
from clip2latent.wandb_run import finish_run, keep_run


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
    """LightningCLI with what every training has, configured as --average.*, --validation.* and --checkpoints.*"""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the subcommands that make sense for a prior."""
        kept = ("fit", "validate", "test")
        return {name: skip for name, skip in LightningCLI.subcommands().items() if name in kept}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the callbacks' options and ties together what must agree."""
        parser.add_lightning_class_args(PriorAverage, "average")
        parser.add_lightning_class_args(PromptValidation, "validation")
        parser.add_lightning_class_args(Checkpoints, "checkpoints")
        parser.add_argument(
            "--global_batch_size",
            type=int | None,
            default=None,
            help="Pairs in a batch on all processes together; it then sets data.batch_size.",
        )
        parser.link_arguments("data.dataset", "model.dataset", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "model.seed", compute_fn=int)
        parser.set_defaults({"trainer.default_root_dir": "runs/prior", "trainer.val_check_interval": 40000})

    def before_instantiate_classes(self) -> None:
        """Settles the run's folder, what to go on from, the processes, and that the last step is validated."""
        config = self.config[self.subcommand]
        folder = Path(config.trainer.default_root_dir)
        config.ckpt_path = self._checkpoint(config.ckpt_path, folder)
        # Nothing in a checkpoint may run code; from an address, Lightning would allow it.
        config.weights_only = True
        launch = launched(os.environ)
        if launch is not None:
            config.trainer.devices, config.trainer.num_nodes = launch.devices, launch.num_nodes
        loggers = config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            keep_run(logger, folder)
        interval, last = config.trainer.val_check_interval, config.trainer.max_steps
        if isinstance(interval, int) and 0 < last < interval:
            config.trainer.val_check_interval = last

    def _checkpoint(self, given: str | None, folder: Path) -> str | None:
        """Returns the file that "last" and "best" mean; refuses to write over another run."""
        files = {"last": folder / LAST, "best": folder / BEST}
        if self.subcommand != "fit" and not given:
            raise ValueError(f"{self.subcommand} needs a checkpoint: --ckpt_path best, last, or a file")
        if given in files and files[given].is_file():
            return str(files[given])
        if given == "last" and self.subcommand == "fit":
            return None  # so that the same command starts a run and goes on with it
        if given in files:
            raise ValueError(f"there is no {files[given]}: --trainer.default_root_dir names the run's folder")
        if self.subcommand == "fit" and not given and files["last"].exists():
            raise ValueError(
                f"{folder} holds a run already: go on with it by --ckpt_path last, or name another folder with"
                " --trainer.default_root_dir"
            )
        return given

    def instantiate_trainer(self, **_: Any) -> Trainer:
        """Builds the trainer with its checkpoints and a CSV log in the run's folder, beside any other logger."""
        config = self.config_init[self.subcommand]
        folder = config.trainer.default_root_dir
        loggers = config.trainer.logger
        loggers = loggers if isinstance(loggers, list) else [loggers] if hasattr(loggers, "log_metrics") else []
        self.saved = config.checkpoints
        scales = config.validation.guidance
        self.saved.watch(*((score_name(scales[0]), 1) if config.validation.prompts_file else ("val/loss", -1)))
        callbacks = [*(config.trainer.callbacks or []), Speed(), LeaveOnSignal(self.saved)]
        if config.trainer.enable_progress_bar is not False:
            callbacks.append(TrainingBar())
        plugins = config.trainer.plugins or []
        plugins = [*(plugins if isinstance(plugins, list) else [plugins]), WholeFiles()]
        launch = launched(os.environ)
        if launch is not None and launch.launcher == "SLURM":
            # Its own checkpoint, hpc_ckpt, would be preferred over --ckpt_path.
            plugins.append(SLURMEnvironment(auto_requeue=False))
        return super().instantiate_trainer(
            logger=[MetricsFile(folder), *loggers] if self.subcommand == "fit" else loggers,
            callbacks=callbacks,
            plugins=plugins,
        )

    def before_fit(self) -> None:
        """Shares the global batch out."""
        total, processes = self.config_init[self.subcommand].global_batch_size, self.trainer.world_size
        if total is None:
            return
        if total < 1 or total % processes:
            raise ValueError(f"global_batch_size {total} cannot be shared out to {processes} processes")
        self.datamodule.batch_size = total // processes

    def after_fit(self) -> None:
        """Prints where the result is."""
        saved = self.saved
        if self.trainer.is_global_zero and saved.best_score is not None:
            print(f"best checkpoint ({saved.monitor} {saved.best_score:.4f}): {saved.folder / BEST}")


def main(args: list[str] | None = None) -> int:
    """Runs the command line; returns 2 after a user's error, reported in one line, and 128 + n after signal n."""
    for expected in (
        ".*exists and is not empty.*",
        ".*your dataloader is not resumable.*",  # the order is a function of the step: it is
    ):
        warnings.filterwarnings("ignore", expected)
    code = 1
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
        code = 0
    except Left as left:
        print(left, file=sys.stderr)
        code = 128 + left.signum
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    finally:
        finish_run(code)
    return code
