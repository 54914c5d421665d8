"""Experiment trackers that TRL reports to: whether the package of each is there, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec

from rlaif.errors import ConfigError

# transformers' name -> the package to install, which has a module of that name but for the exceptions below.
TRACKERS = {
    "azure_ml": "azureml-core",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet_ml",
    "dagshub": "dagshub",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "kubeflow": "kubeflow",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
_MODULES = {"azure_ml": ("azureml",), "tensorboard": ("tensorboard", "tensorboardX")}


def check_trackers(report_to: str | Sequence[str] | None) -> None:
    """Raises ConfigError for a tracker that is unknown or not installed. Those that are installed are not imported."""
    for name in [report_to] if isinstance(report_to, str) else report_to or ():
        if name in ("none", "all"):  # all that are installed
            continue
        if name not in TRACKERS:
            near = get_close_matches(name, TRACKERS, n=1)
            meant = f" (did you mean '{near[0]}'?)" if near else ""
            raise ConfigError(f"report_to: no tracker '{name}'{meant}; known: none, all, {', '.join(TRACKERS)}")
        package = TRACKERS[name]
        if not any(map(find_spec, _MODULES.get(name, (package,)))):
            raise ConfigError(f"report_to: {name} is not installed; pip install {package}, or set report_to: none")
