"""Pages that are written from the code at every build: settings, networks, recipes and commands."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_seg3d.cli import make_parser
from napari_seg3d.model.network_settings import FAMILIES
from napari_seg3d.model.networks import network_module, network_names, network_summary, parameter_count
from napari_seg3d.model.networks.discriminators import DISCRIMINATORS
from napari_seg3d.model.plan import Plan, plan_from
from napari_seg3d.model.recipes import published, recipe_names
from napari_seg3d.training.losses import LOSSES

if TYPE_CHECKING:
    from sphinx.application import Sphinx

TITLES = {
    "Plan": "The plan",
    **{kind.__name__: f"Network: {name}" for name, kind in FAMILIES.items()},
    "Adversarial": "A discriminator",
    "Augmentation": "Augmentation",
    "PlanLabel": "A label",
    "PlanRegion": "A region",
    "CTWindow": "A CT window",
}
WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


def type_in_words(schema: Mapping[str, Any]) -> str:
    """The type and bounds of a JSON schema's property, in words."""
    if "anyOf" in schema:
        return " or ".join(type_in_words(part) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "$ref" in schema:
        return reference(schema)
    if "discriminator" in schema:
        return " or ".join(reference(part) for part in schema["oneOf"])
    if schema.get("type") == "array":
        items = schema.get("prefixItems")
        if items:
            return f"{len(items)} of: {type_in_words(items[0])}"
        return f"list of: {type_in_words(schema['items'])}"
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        return f"by name: {reference(values)}" if isinstance(values, Mapping) and "$ref" in values else "object"
    return WORDS[schema["type"]] + bounds(schema)


def reference(schema: Mapping[str, Any]) -> str:
    """A link to the section of a nested object."""
    title = TITLES[schema["$ref"].rsplit("/", 1)[-1]]
    return f"[{title}](#{title.lower().replace(':', '').replace(' ', '-')})"


def bounds(schema: Mapping[str, Any]) -> str:
    """What a number may be, in words."""
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    said = [f"{word} {schema[key]:,}" for key, word in words.items() if key in schema]
    return ", " + " ".join(said) if said else ""


def plan_page() -> Iterator[str]:
    """A table for each part of the plan."""
    schema = Plan.model_json_schema()
    parts = {"Plan": schema, **schema["$defs"]}
    for name, title in TITLES.items():
        part = parts.pop(name)
        yield f"## {title}\n"
        yield "| setting | type | default | meaning |"
        yield "|---|---|---|---|"
        for key, field in part["properties"].items():
            default = f"`{json.dumps(field['default'])}`" if "default" in field and field["default"] is not None else ""
            yield f"| `{key}` | {type_in_words(field)} | {default} | {field.get('description', '')} |"
        yield ""
    if parts:
        raise ValueError(f"Parts of the plan without a title: {', '.join(parts)}")


def commands_page() -> Iterator[str]:
    """The help of the command and of each of its parts."""
    parser = make_parser()
    yield f"```text\n{parser.format_help()}```\n"
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        yield f"## {name}\n\n```text\n{command.format_help()}```\n"


def losses_page() -> Iterator[str]:
    """What each name of a loss means."""
    yield "| loss | what it is |"
    yield "|---|---|"
    for name, form in LOSSES.items():
        yield f"| `{name}` | {form.about} |"


def recipe_page(name: str) -> Iterator[str]:
    """What a recipe fixes, with what differs from its article."""
    recipe = published(name)
    yield "| setting | value | where it differs from the article, and why |"
    yield "|---|---|---|"
    reasons = dict(recipe["reasons"])
    for key in ("targets", "spacing_mm", "patch_voxels", "patches_per_epoch", "patches_per_case"):
        if key in recipe:
            yield f"| `{key}` | `{json.dumps(recipe[key])}` | {reasons.pop(key, '')} |"
    for key, value in recipe["settings"].items():
        if key == "augmentation":
            # What is switched off need not be listed.
            value = {k: v for k, v in value.items() if v != 0}
        yield f"| `{key}` | `{json.dumps(value)}` | {reasons.pop(key, '')} |"
    for key, reason in reasons.items():
        yield f"| `{key}` | | {reason} |"


def networks_page() -> Iterator[str]:
    """A table of all families, then what the module of each says about it."""
    stages = {
        "widths": (32, 64, 128, 256, 320, 320),
        "kernels": ((3, 3, 3),) * 6,
        "strides": ((1, 1, 1), *[(2, 2, 2)] * 5),
    }
    written_out: dict[str, dict[str, Any]] = {"unet": stages, "resenc-unet": {**stages, "blocks": (1, 3, 4, 6, 6, 6)}}
    told = {name: inspect.cleandoc(network_module(name).__doc__ or "") for name in network_names()}
    yield "| network | paper | million parameters | patches in multiples of | good for |"
    yield "|---|---|---|---|---|"
    for name in network_names():
        plan = plan_from(
            {
                "modalities": ("FLAIR", "T1w", "T1gd", "T2w"),
                "labels": [{"value": i, "name": f"label {i}", "color": "#ff0000"} for i in (1, 2)],
                "spacing_mm": (1, 1, 1),
                "network": {"name": name, **written_out.get(name, {})},
                "patch_voxels": (128, 128, 64),
                "epochs": 1,
            }
        )
        doi = re.search(r"doi:([^\s),;]+[^\s),;.])", told[name])
        paper = f"[{doi[1]}](https://doi.org/{doi[1]})" if doi else ""
        divisor = " × ".join(str(n) for n in plan.network.divisor)
        only = "; only the plan's own size" if plan.network.fixed_size else ""
        yield (
            f"| [`{name}`](#{name}) | {paper} | {parameter_count(plan) / 1e6:.2f} | {divisor}{only} | "
            f"{network_summary(name)} |"
        )
    for name, text in told.items():
        yield f"\n## {name}\n\n{text}"
    yield "\n## Discriminators\n"
    yield from (f"- `{name}`: {about}" for name, about in DISCRIMINATORS.items())


def write_pages(app: Sphinx) -> None:
    """Write the pages that others include."""
    # argparse shall not follow the terminal in which the documentation is built.
    os.environ["COLUMNS"] = "100"
    folder = Path(app.srcdir) / "reference" / "generated"
    folder.mkdir(exist_ok=True)
    pages = {"plan.md": plan_page(), "commands.md": commands_page(), "losses.md": losses_page()}
    pages["networks.md"] = networks_page()
    pages |= {f"recipe-{name}.md": recipe_page(name) for name in recipe_names()[1:]}
    for name, page in pages.items():
        (folder / name).write_text("\n".join(page), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Take part in the build."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
