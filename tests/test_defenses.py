"""What every defense owes, tested for whatever the registry holds: a new defense is covered without an edit here."""

import json
from functools import cache
from typing import Any

import pytest
import torch
from builders import (
    CONF,
    DEFENSE_NAMES,
    SHAPE,
    UNTOUCHABLE,
    Diary,
    classifier,
    defender,
    method_values,
    quick_defense,
    quick_values,
    reloaded,
    same_state,
    split,
    state_of,
    with_value,
)
from torch import Tensor, nn

from ntml_bench.data.base import Split
from ntml_bench.defenses import DEFENSES
from ntml_bench.defenses.base import CLEAN_BUDGET, POISONED_TRAINING_SET, DefenseContext
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.schema import build

REAL = [name for name in DEFENSE_NAMES if name != "none"]
# At a threshold of 1 all channels are pruned, so that the model changes for sure; so do few deviations from the mean, and an
# index that flags whatever is below the median.
STRONG: dict[str, dict[str, Any]] = {
    "anp": {"threshold": 1.0},
    "rnp": {"threshold": 1.0},
    "clp": {"deviations": 1.0},
    "bnp": {"deviations": 1.0},
    "ep": {"deviations": 1.0},
    "nc": {"anomaly_index": 0.0},
}
DRAWS_NOTHING = ("clp", "bnp", "ep")
LOGS_ITS_DRAWS = ("anp", "rnp", "nc")
INSERTS = ("npd",)
"""What leaves a layer of its own in the net."""


def purified(name: str, seed: int = 0, **changes: Any) -> Classifier:
    return quick_defense(name).purify(defender(seed=seed, **changes))


def test_every_defense_of_the_package_has_a_yaml_that_says_its_command() -> None:
    ours = [name for name in DEFENSES if DEFENSES[name].__module__.startswith("ntml_bench.defenses.")]
    assert ours == sorted(path.stem for path in (CONF / "defense").glob("*.yaml"))
    for name in ours:
        assert f"ntml-bench defense={name}" in (CONF / "defense" / f"{name}.yaml").read_text()
        assert method_values("defense", name)["name"] == name


@pytest.mark.parametrize("name", DEFENSE_NAMES)
def test_the_purified_model_reloads_without_the_defense(name: str) -> None:
    model = purified(name)
    assert type(model) is Classifier
    fresh = reloaded(model)
    images = split(10, seed=9).images.float() / 255
    with torch.no_grad():
        expected = model.eval()(images)
        assert torch.equal(fresh(images), expected)
    assert expected.isfinite().all()
    # Nothing of the defense stays on the model: what a file does not hold must not take part.
    assert list(model.state_dict()) == list(fresh.state_dict())
    if name not in INSERTS:
        assert list(model.state_dict()) == list(classifier().state_dict())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert not any(parameter._backward_hooks for parameter in model.parameters())


@pytest.mark.parametrize("name", DEFENSE_NAMES)
def test_the_purified_model_is_in_eval_mode(name: str) -> None:
    assert not any(module.training for module in purified(name).modules())


@pytest.mark.parametrize("name", DEFENSE_NAMES)
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    first = state_of(purified(name))
    torch.manual_seed(99)
    assert same_state(first, state_of(purified(name)))


@pytest.mark.parametrize("name", REAL)
def test_a_defense_changes_the_model(name: str) -> None:
    defense = quick_defense(name, **STRONG.get(name, {}))
    assert not same_state(state_of(classifier()), state_of(defense.purify(defender())))


@pytest.mark.parametrize("name", [name for name in REAL if name not in (*LOGS_ITS_DRAWS, *DRAWS_NOTHING)])
def test_another_seed_draws_anew(name: str) -> None:
    assert not same_state(state_of(purified(name)), state_of(purified(name, seed=1)))


@pytest.mark.parametrize("name", LOGS_ITS_DRAWS)
def test_another_seed_draws_anew_where_the_model_need_not_change(name: str) -> None:
    one, other = Diary(), Diary()
    purified(name, diary=one)
    purified(name, seed=1, diary=other)
    assert one.logged != other.logged


@pytest.mark.parametrize("name", DEFENSE_NAMES)
def test_only_what_a_defense_needs_is_read(name: str) -> None:
    needs = DEFENSES[name].needs
    assert set(needs) <= {CLEAN_BUDGET, POISONED_TRAINING_SET}
    out_of_reach: dict[str, Any] = {}
    if CLEAN_BUDGET not in needs:
        out_of_reach["clean_budget"] = UNTOUCHABLE
    if POISONED_TRAINING_SET not in needs:
        out_of_reach["poisoned_train"] = UNTOUCHABLE
    purified(name, **out_of_reach)
    if CLEAN_BUDGET in needs:
        with pytest.raises(AssertionError, match="out of reach"):
            purified(name, clean_budget=UNTOUCHABLE)
    if POISONED_TRAINING_SET in needs:
        with pytest.raises(AssertionError, match="out of reach"):
            purified(name, poisoned_train=UNTOUCHABLE)


@pytest.mark.parametrize("name", DEFENSE_NAMES)
def test_data_and_global_stream_are_left_as_they_were(name: str) -> None:
    budget, train = split(24, seed=1), split(40, seed=2)
    stream = torch.get_rng_state()
    purified(name, clean_budget=budget, poisoned_train=train)
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.equal(budget.images, split(24, seed=1).images)
    assert torch.equal(budget.labels, split(24, seed=1).labels)
    assert torch.equal(train.images, split(40, seed=2).images)
    assert torch.equal(train.labels, split(40, seed=2).labels)


@pytest.mark.parametrize("name", DEFENSE_NAMES)
def test_every_logged_value_is_a_number_with_an_epoch(name: str) -> None:
    diary = Diary()
    purified(name, diary=diary)
    assert (diary.logged == []) == (name == "none")
    for stage, values in diary.logged:
        assert stage
        assert values["epoch"] >= 1
        assert all(isinstance(value, int | float) and value == value for value in values.values())


@pytest.mark.parametrize("name", DEFENSE_NAMES)
def test_a_budget_smaller_than_a_batch_works(name: str) -> None:
    defense = DEFENSES[name](build(DEFENSES[name].Config, _only_once(method_values("defense", name)), "defense"))
    defense.purify(defender(clean_budget=split(5), poisoned_train=split(9)))


def _only_once(values: dict[str, Any]) -> dict[str, Any]:
    """The values of the YAML file, batch sizes among them, with little to do."""
    return {
        name: _only_once(value) if isinstance(value, dict) else {"epochs": 1, "steps": 2, "rounds": 1}.get(name, value)
        for name, value in values.items()
    }


@pytest.mark.parametrize("name", DEFENSE_NAMES)
def test_the_usual_net_passes_the_check(name: str) -> None:
    quick_defense(name).check(classifier(), SHAPE)


@pytest.mark.parametrize(
    ("defense", "net", "message"),
    [
        ("anp", "vit_tiny_patch16_224", "anp prunes channels of BatchNorm layers; VisionTransformer has none"),
        ("anp", "convnext_atto", "anp prunes channels of BatchNorm layers; ConvNeXt has none"),
        ("nad", "vit_tiny_patch16_224", r"nad needs feature maps \[N, C, H, W\]; the stages of VisionTransformer give none"),
        ("nad", "swin_tiny_patch4_window7_224", r"nad needs feature maps \[N, C, H, W\]; the stages of SwinTransformer"),
    ],
)
def test_a_net_that_does_not_fit_is_named(defense: str, net: str, message: str) -> None:
    shape = (3, 32, 32)
    with pytest.raises(UserError, match=message):
        quick_defense(defense).check(classifier(net, shape=shape), shape)


@pytest.mark.parametrize("net", ["resnet18", "convnext_atto", "regnetx_002", "mobilenetv3_small_050"])
def test_attention_distillation_takes_nets_with_feature_maps(net: str) -> None:
    quick_defense("nad").check(classifier(net, shape=(3, 32, 32)), (3, 32, 32))


def test_a_net_without_a_linear_head_cannot_be_fine_pruned() -> None:
    class Headless(nn.Module):
        def get_classifier(self) -> nn.Module:
            return nn.Identity()

    with pytest.raises(UserError, match="ends in Identity"):
        quick_defense("fp").check(Classifier(Headless(), torch.zeros(3), torch.ones(3)), SHAPE)


def test_no_attention_weights_are_refused() -> None:
    with pytest.raises(UserError, match=r"attention_weights is \[\]"):
        quick_defense("nad", attention_weights=[]).check(classifier(), SHAPE)


def test_more_attention_weights_than_stages_are_refused() -> None:
    with pytest.raises(UserError, match="names 3 stages of feature maps; this needs 4"):
        quick_defense("nad", attention_weights=[1.0] * 4).check(classifier(), SHAPE)


def test_a_hole_larger_than_the_images_is_refused() -> None:
    quick_defense("nad", cutout=8).check(classifier(), SHAPE)
    with pytest.raises(UserError, match=r"defense.cutout is 9; allowed: 0 to 8, the smaller side of the images"):
        quick_defense("nad", cutout=9).check(classifier(), SHAPE)


# A training that may end behind its first epoch or not.
TWO_EPOCHS = quick_values(method_values("defense", "rnp"))["unlearning"] | {"epochs": 2}
TWO_SLOW_EPOCHS = quick_values(method_values("defense", "tsbd"))["unlearning"] | {"epochs": 2}
# A search whose cost goes up and down.
BALANCED: dict[str, Any] = {
    "rounds": 30,
    "batch_size": 24,
    "learning_rate": 0.5,
    "patience": 1,
    "success": 0.5,
    "cost": 0.05,
    "cost_from_start": True,
}
# For every value of a YAML file but a name and the recipes' own: another one that must change what comes out, and what else
# it takes to show.
TELLING: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = {
    ("anp", "eps"): (0.1, {}),
    ("anp", "trade_off"): (0.7, {}),
    ("anp", "steps"): (4, {}),
    ("anp", "batch_size"): (5, {}),
    ("anp", "learning_rate"): (0.1, {}),
    ("anp", "momentum"): (0.1, {}),
    ("anp", "threshold"): (1.0, {}),
    ("anp", "tolerance"): (1.0, {"threshold": None, "learning_rate": 20.0, "tolerance": 0.0}),
    ("anp", "selection_share"): (0.2, {"threshold": None}),
    ("ban", "eps"): (0.1, {}),
    ("ban", "steps"): (1, {}),
    ("ban", "noise_weight"): (1.0, {}),
    ("bnp", "deviations"): (1.0, {}),
    ("bnp", "prune_bias"): (True, {"deviations": 1.0}),
    ("clp", "deviations"): (1.0, {}),
    ("ep", "deviations"): (1.0, {}),
    ("ep", "prune_bias"): (True, {"deviations": 1.0}),
    ("ep", "images"): (20, {"deviations": 1.0}),
    ("ep", "bin_width"): (2.0, {"deviations": 1.0}),
    ("fst", "alpha"): (1.0, {}),
    ("sau", "rounds"): (2, {}),
    ("sau", "batch_size"): (5, {}),
    ("sau", "learning_rate"): (0.002, {}),
    ("sau", "bound"): (0.1, {}),
    ("sau", "steps"): (1, {"rounds": 3, "learning_rate": 0.01}),
    ("sau", "step_size"): (0.05, {}),
    ("sau", "adversarial_weight"): (0.0, {"step_size": 0.05}),
    ("sau", "shared_weight"): (0.0, {"step_size": 0.05}),
    ("rnp", "unlearned_accuracy"): (1.0, {"unlearned_accuracy": 0.0, "unlearning": TWO_EPOCHS}),
    ("rnp", "recovery_epochs"): (2, {}),
    ("rnp", "recovery_weight"): (0.4, {}),
    ("rnp", "batch_size"): (5, {}),
    ("rnp", "learning_rate"): (0.1, {"recovery_epochs": 2}),
    ("rnp", "momentum"): (0.1, {}),
    ("rnp", "threshold"): (1.0, {"threshold": 0.5}),
    ("rnp", "tolerance"): (1.0, {"tolerance": 0.0, "learning_rate": 20.0}),
    ("rnp", "selection_share"): (0.5, {}),
    ("nc", "rounds"): (2, {}),
    ("nc", "images"): (16, {}),
    ("nc", "batch_size"): (5, {}),
    ("nc", "learning_rate"): (0.3, {}),
    ("nc", "start"): ("white", {}),
    ("nc", "cost"): (0.2, BALANCED),
    ("nc", "cost_from_start"): (False, BALANCED),
    ("nc", "cost_factor"): (4.0, BALANCED),
    ("nc", "success"): (0.0, BALANCED | {"success": 1.0}),
    ("nc", "patience"): (2, BALANCED),
    ("nc", "stop_factor"): (0.01, BALANCED | {"stop_patience": 2}),
    ("nc", "stop_patience"): (2, BALANCED),
    ("nc", "anomaly_index"): (0.0, {}),
    ("nc", "stamped_share"): (0.5, {"anomaly_index": 0.0}),
    ("npd", "layer"): ("layer2.0.conv2", {}),
    ("npd", "warmup_epochs"): (2, {}),
    ("npd", "warmup_learning_rate"): (0.01, {}),
    ("npd", "radius"): (0.5, {}),
    ("npd", "step_size"): (0.02, {}),
    ("npd", "steps"): (1, {"step_size": 0.02, "success": 1.0}),
    ("npd", "success"): (1.0, {"success": 0.0, "step_size": 0.02}),
    ("npd", "consistency_weight"): (1.0, {}),
    ("npd", "answer_weight"): (1.0, {}),
    ("npd", "target_weight"): (1.0, {}),
    ("tsbd", "unlearned_accuracy"): (1.0, {"unlearned_accuracy": 0.0, "unlearning": TWO_SLOW_EPOCHS}),
    ("tsbd", "neuron_share"): (0.2, {}),
    ("tsbd", "tolerance"): (1.0, {"tolerance": 0.0}),
    ("tsbd", "weight_share"): (0.5, {"neuron_share": 0.2}),
    ("tsbd", "radius"): (0.5, {}),
    ("tsbd", "alpha"): (0.2, {"radius": 0.5}),
    ("ft_sam", "rho"): (0.5, {}),
    ("ft_sam", "smoothing"): (0.3, {}),
    ("fp", "tolerance"): (1.0, {"tolerance": 0.0}),
    ("fp", "selection_share"): (0.2, {}),
    ("i_bau", "rounds"): (2, {}),
    ("i_bau", "batch_size"): (5, {}),
    ("i_bau", "learning_rate"): (0.002, {}),
    ("i_bau", "radius"): (0.01, {"radius": 0.02}),
    ("i_bau", "penalty"): (0.5, {"inner_passes": 2}),
    ("i_bau", "inner_passes"): (2, {}),
    ("i_bau", "inner_learning_rate"): (0.5, {"radius": 100.0, "inner_learning_rate": 0.1}),
    ("i_bau", "fixed_point_iterations"): (0, {"perturbed_share": 0.5}),
    ("i_bau", "fixed_point_step"): (0.5, {"perturbed_share": 0.5}),
    ("i_bau", "perturbed_share"): (1.0, {}),
    ("nad", "attention_weights"): ([5.0, 1000.0, 1000.0], {}),
    ("nad", "cutout"): (4, {}),
    ("nt_ml", "mode"): ("drop", {"student_start": "scratch"}),
    ("nt_ml", "student_start"): ("scratch", {}),
    ("nt_ml", "non_target_training"): (False, {}),
    ("nt_ml", "target"): ("uniform", {}),
    ("nt_ml", "mutual"): ("ce_only", {}),
    ("nt_ml", "freeze_teacher"): (True, {}),
    ("nt_ml", "temperature"): (4.0, {}),
    ("nt_ml", "alpha"): (1.0, {}),
    ("nt_ml", "teacher_learning_rate"): (0.1, {}),
    ("nt_ml_selective", "blends"): (1, {}),
    ("nt_ml_selective", "isolate"): (0.3, {}),
    ("nt_ml_selective", "keep"): (0.5, {}),
    ("nt_ml_selective", "nt_weight"): (1.0, {}),
    ("nt_ml_selective", "steps"): (4, {}),
    ("nt_ml_selective", "isolated_batch"): (5, {}),
    ("nt_ml_selective", "kept_batch"): (30, {}),
    ("nt_ml_selective", "learning_rate"): (0.02, {}),
    ("nt_ml_selective", "momentum"): (0.5, {}),
    ("nt_ml_selective", "nesterov"): (False, {}),
    ("nt_ml_selective", "weight_decay"): (0.1, {}),
    ("nt_ml_selective", "warmup"): (0.6, {}),
    ("nt_ml_selective", "temperature"): (4.0, {}),
    ("nt_ml_selective", "alpha"): (1.0, {}),
    ("nt_ml_selective", "teacher_learning_rate"): (0.1, {}),
}
RECIPE: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 6,
    "learning_rate": 0.02,
    "momentum": 0.5,
    "nesterov": None,  # the other way round
    "weight_decay": 0.1,
    "schedule": "constant",
    "warmup": 0.6,
    "full_rate": 0.7,
}

# What it takes for a recipe to be used.
RECIPE_IS_USED: dict[str, dict[str, Any]] = {"nc": {"anomaly_index": 0.0}}


@cache
def outcome(name: str, written: str) -> tuple[dict[str, Tensor], list[Any]]:
    """Weights, and all that was logged and selected on, of a run with these values, in JSON."""
    values = json.loads(written)
    diary, selected_on = Diary(), []

    class Context(DefenseContext):
        def part_of_budget(self, share: float) -> Split:
            part = super().part_of_budget(share)
            selected_on.append(part.images.sum(dim=(1, 2, 3)).tolist())
            return part

    model = quick_defense(name, values).purify(Context(**vars(defender(diary=diary))))
    return state_of(model), diary.logged + selected_on


def differ(name: str, one: dict[str, Any], other: dict[str, Any]) -> bool:
    first, second = (outcome(name, json.dumps(values)) for values in (one, other))
    return not same_state(first[0], second[0]) or first[1] != second[1]


@pytest.mark.parametrize("name", REAL)
def test_every_value_of_a_yaml_file_changes_the_result(name: str) -> None:
    quick = quick_values(method_values("defense", name))
    for key, value in quick.items():
        if key == "name":
            continue
        if not isinstance(value, dict):
            changed, setting = TELLING[name, key]
            base = quick | setting
            assert base[key] != changed
            assert differ(name, base, base | {key: changed}), key
            continue
        for part in value:
            changed = "cosine" if (part, value[part]) == ("schedule", "constant") else RECIPE[part]
            base = quick | RECIPE_IS_USED.get(name, {}) | {key: value | {"nesterov": True}}
            if part == "warmup":
                base = with_value(base, f"{key}.schedule", "one_cycle")
            dotted, new = f"{key}.{part}", (not base[key][part]) if changed is None else changed
            assert base[key][part] != new
            assert differ(name, base, with_value(base, dotted, new)), dotted
