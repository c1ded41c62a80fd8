"""Names for the axes of a table, so that two cells share a name only if nothing but their seed differs.

The name of a config option is enough while a sweep varies options only. An ablation varies values *within* an option;
the values that differ are then written behind the name: `nt_ml (temperature=4)`. So are the folder or the fingerprint of the
images and the version of the code, where cells of one sweep were made from different ones.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

METHOD_GROUPS = ("dataset", "model", "attack", "defense")
TUNING = "defense.tuning"
"""The setting of a tuned defense that the others do not have."""
PRECISION = "precision"
"""What the machine decides where nobody does."""


class Labels(NamedTuple):
    """Where a cell stands: the block (dataset, model), the row (attack) and the column (defense)."""

    dataset: str
    model: str
    attack: str
    defense: str


def label_cells(cells: Sequence[Mapping[str, Any]]) -> list[Labels]:
    """The labels of the cells of a manifest, in its order.

    Each label gets the settings of its own group that differ between cells that would otherwise share the label;
    a training recipe or a top-level value (`clean_budget`) is part of the model's label, because two recipes must not
    stand in one block. A defense is compared within its row, an attack within its block: a value that follows the
    attack (an interpolation) then needs no label, while cells that could be taken for seeds always get one. The precision is
    in a label only where a cell was made in two: seeds of one table may come from machines that compute differently, which
    the table's legend says.
    """
    places = [(cell.get("seed"), *(cell[group] for group in METHOD_GROUPS)) for cell in cells]
    settings_of = without_precision(places, list(map(_settings, cells)))
    flat = [settings | origin for settings, origin in zip(settings_of, _origins(cells), strict=True)]
    if any(TUNING in settings for settings in flat):
        flat = [{TUNING: "none"} | settings for settings in flat]
    groups = [{group: _of_group(settings, group) for group in (*METHOD_GROUPS, "recipe")} for settings in flat]

    def extend(group: str, scope: Callable[[int], Hashable], names: Sequence[str]) -> list[str]:
        return _extended(names, [entry[group] for entry in groups], [scope(index) for index in range(len(cells))])

    dataset = extend("dataset", lambda i: cells[i]["dataset"], [cell["dataset"] for cell in cells])
    model = extend("model", lambda i: (dataset[i], cells[i]["model"]), [cell["model"] for cell in cells])
    model = extend("recipe", lambda i: (dataset[i], model[i]), model)
    block = list(zip(dataset, model, strict=True))
    attack = extend("attack", lambda i: (block[i], cells[i]["attack"]), [cell["attack"] for cell in cells])
    # A key that differs in one row is written in every row of the block, so that a column has one name from top to bottom.
    varying = _varying_by(
        [(block[i], cell["defense"]) for i, cell in enumerate(cells)],
        [(block[i], attack[i], cell["defense"]) for i, cell in enumerate(cells)],
        [entry["defense"] for entry in groups],
    )
    defense = [
        _with_settings(cell["defense"], groups[i]["defense"], varying[(block[i], cell["defense"])])
        for i, cell in enumerate(cells)
    ]
    return _apart([Labels(*parts) for parts in zip(dataset, model, attack, defense, strict=True)], flat)


def _settings(cell: Mapping[str, Any]) -> dict[str, str]:
    return flat_settings(cell.get("settings") or {})


def without_precision(places: Sequence[Hashable], flat: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The settings of cells without the precision, unless two of one seed and options, its place, differ in it alone."""
    bare = [{key: value for key, value in settings.items() if key != PRECISION} for settings in flat]
    found: dict[Hashable, set[str | None]] = defaultdict(set)
    for place, settings, rest in zip(places, flat, bare, strict=True):
        found[place, frozenset(rest.items())].add(settings.get(PRECISION))
    return list(flat) if any(len(precisions) > 1 for precisions in found.values()) else bare


def _origins(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What each cell was made from besides its settings, dotted as these; the images only where they differ.

    Nothing where a cell does not say it: older manifests did not.
    """
    if not all(cell.get("data") and cell.get("code") for cell in cells):
        return [{} for _ in cells]
    images: dict[Hashable, set[str]] = defaultdict(set)
    in_folder: dict[Hashable, set[str]] = defaultdict(set)
    sets = [(cell["dataset"], *_of_group(_settings(cell), "dataset").items()) for cell in cells]
    for name, cell in zip(sets, cells, strict=True):
        images[name].add(cell["data"]["whole"])
        in_folder[name, cell["data"]["folder"]].add(cell["data"]["whole"])
    origins = []
    for name, cell in zip(sets, cells, strict=True):
        data, code = cell["data"], cell["code"]
        origin = {"engine": str(code["engine"])}
        origin |= {f"{group}.code": code_text(code[group]) for group in ("attack", "defense", "model") if group in code}
        if len(images[name]) > 1:
            origin["dataset.folder"] = str(data["folder"])
            if len(in_folder[name, data["folder"]]) > 1:
                origin["dataset.images"] = data["whole"][:8]
        origins.append(origin)
    return origins


def code_text(code: Any) -> str:
    """A version, and the first digits of a source from outside the package."""
    if isinstance(code, str):
        return code[:8]
    return " ".join([f"v{code['version']}", *(mark[:8] for mark in code.get("source", ()))])


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys and values as text, without the seed."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(flat_settings(value, f"{prefix}{key}."))
        elif prefix or key != "seed":
            flat[prefix + key] = value_text(value)
    return flat


def value_text(value: Any) -> str:
    """A value as it is shown: 4.0 as 4; a text in quotes only where it would read as another kind of value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str):
        return json.dumps(value, separators=(",", ":"), sort_keys=True)
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value)


def _of_group(settings: Mapping[str, str], group: str) -> dict[str, str]:
    if group == "recipe":
        return {key: value for key, value in settings.items() if key.split(".")[0] not in METHOD_GROUPS}
    return {key.removeprefix(f"{group}."): value for key, value in settings.items() if key.startswith(f"{group}.")}


def _extended(names: Sequence[str], settings: Sequence[dict[str, str]], scopes: Sequence[Hashable]) -> list[str]:
    varying = _varying_by(scopes, scopes, settings)
    return [_with_settings(name, values, varying[scope]) for name, values, scope in zip(names, settings, scopes, strict=True)]


def _varying_by(
    owners: Sequence[Hashable], scopes: Sequence[Hashable], settings: Sequence[dict[str, str]]
) -> dict[Hashable, list[str]]:
    """For each owner the keys (in their order) that take two values within some scope of it."""
    seen: dict[tuple[Hashable, Hashable, str], set[str]] = defaultdict(set)
    for owner, scope, values in zip(owners, scopes, settings, strict=True):
        for key, value in values.items():
            seen[(owner, scope, key)].add(value)
    varying: dict[Hashable, list[str]] = {owner: [] for owner in owners}
    for (owner, _, key), values in seen.items():
        if len(values) > 1 and key not in varying[owner]:
            varying[owner].append(key)
    return varying


def _with_settings(name: str, settings: Mapping[str, str], keys: Sequence[str]) -> str:
    return with_words(name, ", ".join(f"{key}={settings[key]}" for key in keys if key in settings))


def with_words(name: str, shown: str) -> str:
    """A label with words in parentheses behind it, behind those that stand there already."""
    if not shown:
        return name
    if name.endswith(")"):
        return f"{name[:-1]}, {shown})"
    return f"{name} ({shown})"


def _apart(labels: Sequence[Labels], settings: Sequence[dict[str, str]]) -> list[Labels]:
    """The last word: cells that share all labels and yet differ (a key only some of them have) are numbered apart."""
    variants: dict[Labels, list[dict[str, str]]] = defaultdict(list)
    for label, values in zip(labels, settings, strict=True):
        if values not in variants[label]:
            variants[label].append(values)
    apart = []
    for label, values in zip(labels, settings, strict=True):
        number = variants[label].index(values) + 1
        several = len(variants[label]) > 1
        apart.append(label._replace(defense=f"{label.defense} (variant {number})") if several else label)
    return apart


def option_of(label: str) -> str:
    """The name of the config option that a label begins with."""
    return label.split(" (", maxsplit=1)[0]
