"""What of a cell can be seen to fail before anything is trained: settings that do not fit the data, the net or each other."""

from copy import deepcopy
from functools import cache, lru_cache
from math import floor

import torch

from ntml_bench.app.settings import Settings
from ntml_bench.data import ImageData
from ntml_bench.data.budget import clean_budget
from ntml_bench.defenses.base import CLEAN_BUDGET, POISONED_TRAINING_SET, Defense
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier, ModelConfig, check_net, make_classifier
from ntml_bench.models.classifier import OWN, TimmConfig
from ntml_bench.models.weights import WeightsFile, fits, load_into
from ntml_bench.objective import CLEAN_BUDGET_ACCURACY
from ntml_bench.retuning import check_retuning
from ntml_bench.store import key_of, plain
from ntml_bench.tuning import parted

_FITTING: set[tuple[type[Defense], str]] = set()
"""Defenses that were tried on a net, by their settings and its."""


def check_cell(settings: Settings, data: ImageData) -> None:
    """Raise UserError for settings that do not fit the data, the model or each other."""
    attack, defense, general = settings.attack, settings.defense, settings.general
    class_sizes = torch.bincount(data.train.labels.cpu(), minlength=data.num_classes)
    attack.check(class_sizes, data.image_shape)
    _check_target(settings, data)
    attack.check_images(data.train, data.test)
    if POISONED_TRAINING_SET in defense.needs and not attack.has_training_set:
        raise UserError(
            f"defense {defense.config.name} needs the poisoned training set, and that of the given victim is not known; "
            "attack.poisoned names it, or choose a defense that needs the clean budget only"
        )
    if POISONED_TRAINING_SET in defense.needs and not general.defender_has_training_set:
        raise UserError(
            f"defense {defense.config.name} needs the poisoned training set, but defender_has_training_set is false; "
            "set it to true or choose a defense that needs the clean budget only"
        )
    if CLEAN_BUDGET in defense.needs or settings.tuning is not None or general.objective == CLEAN_BUDGET_ACCURACY:
        # Which images the attack takes is not known yet; how many it leaves is.
        untouched = torch.arange(len(data.train)) >= attack.touched(len(data.train))
        budget = clean_budget(data.train.labels, untouched, general.clean_budget, general.seed)
        if settings.tuning is not None:
            parted(budget, data.train.labels, settings.tuning.validation_share, general.seed)
    if settings.retuning is not None:
        check_retuning(settings.retuning, len(data.train), attack.touched(len(data.train)))
    patch_size_of(settings.model, data.num_classes, data.image_shape)
    if attack.weights is not None:
        _check_given(attack.weights, settings.model, data.num_classes, data.image_shape)
    for candidate in settings.tuning.candidates if settings.tuning else (defense,):
        _check_defense(candidate, settings.model, data.num_classes, data.image_shape)


def _check_target(settings: Settings, data: ImageData) -> None:
    """Raise UserError where the attack could not be measured, or would poison nothing."""
    attack = settings.attack
    target, rate = attack.config.target_class, attack.config.poisoning_rate
    if attack.config.name != "none" and bool(attack.reached(data.test.labels, data.num_classes).all()):
        if attack.target(data.num_classes) is None:
            raise UserError(
                f"attack {attack.config.name} could be measured on none of {len(data.test)} test images: the class of each is "
                "the one that it is to be taken for; allowed: a label map that changes some of them"
            )
        raise UserError(
            f"attack.target_class is {target} ({data.class_names[target]!r}), the class of all {len(data.test)} test "
            "images; allowed: a class beside which there are others, on whose images the attack is measured"
        )
    batch = min(settings.training.batch_size, len(data.train))
    if attack.controls_training and rate > 0 and attack.touched(batch) == 0:
        raise UserError(
            f"training.batch_size is {batch} with attack.poisoning_rate {rate:g}: {attack.config.name} would "
            f"poison no image of a batch; allowed: batches of at least {floor(0.5 / rate) + 1}"
        )


def _check_defense(defense: Defense, config: ModelConfig, num_classes: int, image_shape: tuple[int, int, int]) -> None:
    """Once for all cells of a sweep: a defense may try its steps on the model."""
    asked = plain({"defense": defense.config, "model": config.determining(), "classes": num_classes, "images": image_shape})
    key = type(defense), key_of(asked)
    if key not in _FITTING:
        defense.check(_untrained(config, num_classes, image_shape), image_shape)
        _FITTING.add(key)


@cache
def _check_given(weights: WeightsFile, config: ModelConfig, num_classes: int, image_shape: tuple[int, int, int]) -> None:
    """Raise UserError for weights that are not those of the net, or that fit two nets which answer otherwise."""
    _, height, width = image_shape
    model = deepcopy(_untrained(config, num_classes, image_shape))
    what = f"model.name={config.name}"
    if config.adapted is None and config.name not in OWN:
        original = _untrained(TimmConfig(config.name, False), num_classes, image_shape)
        if repr(original.net) != repr(model.net):
            if fits(original.net, weights) and fits(model.net, weights):
                raise UserError(
                    f"attack.weights fits model.name={config.name} as it is and as it is changed for images of {height}x{width}"
                    " pixels (strides taken out); say which: model.adapted=false or model.adapted=true"
                )
            what += f", changed for images of {height}x{width} pixels (model.adapted=false: as it is" + (
                ", which fits)" if fits(original.net, weights) else ")"
            )
    load_into(model.net, weights, what)


@cache
def patch_size_of(config: ModelConfig, num_classes: int, image_shape: tuple[int, int, int]) -> int | None:
    """As the classifier has it. Raises UserError for a net that does not fit or does not see the whole image."""
    model = _untrained(config, num_classes, image_shape)
    check_net(config.name, model, image_shape, num_classes)
    return model.patch_size


@lru_cache(maxsize=4)
def _untrained(config: ModelConfig, num_classes: int, image_shape: tuple[int, int, int]) -> Classifier:
    """A model to look at, on the CPU."""
    channels = image_shape[0]
    return make_classifier(config, num_classes, image_shape, (torch.zeros(channels), torch.ones(channels)), seed=0)
