"""Make the pages that are read off the code: recipe.md, cli.md and the recipe's JSON Schema.

`make docs` writes them; tests/test_docs.py fails when they lag behind.
"""

import json
from pathlib import Path
from typing import Any

import typer

from monotreme.cli import app
from monotreme.recipe import Recipe

DOCS = Path(__file__).parent

ORDER = ["Curate", "SourceRef", "Decontaminate", "BenchmarkRef", "Judge", "Train", "ModelRef"]
ORDER += ["Merge", "IntoRef", "AdapterRef", "MixedRef", "Evaluate", "Release"]

RECIPE_HEAD = """# The recipe

One YAML file, a table a stage. Every default is the paper's. Keys that do not exist are refused, and
the nearest right one is named. On the command line `--set table.key=value` overrides any of them. A
relative path is relative to the recipe's folder; `pocket:NAME` is a file of the built-in pocket set.
For completion in an editor, begin the file with the path of [the schema](recipe.schema.json):

    # yaml-language-server: $schema=docs/recipe.schema.json

This page is made from the code by `make docs`.
"""

CLI_HEAD = """# The commands

This page is made from the code by `make docs`. RECIPE is a recipe file or the folder of a run; exit
codes are listed at the end.
"""

EXIT_CODES = """## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | verify: a claim is false |
| 2 | the recipe or the command line is wrong |
| 3 | a file, a row or a model cannot be read as what it should be |
| 4 | two things that must belong together do not |
| 5 | refused: possible but not sound, and not asked for by name |
| 6 | the Hub cannot be reached or says no |
| 7 | the disk is full, or a file cannot be written |
| 8 | another command is working on the same run |
| 130 | stopped with Ctrl-C; the same command goes on from there |
"""


def recipe_page(schema: dict[str, Any]) -> str:
    """The recipe's tables and keys, from its JSON Schema."""
    parts = [RECIPE_HEAD, _table("The recipe", schema)]
    parts += [_table(_title(name), schema["$defs"][name]) for name in ORDER]
    return "\n".join(parts)


def _title(name: str) -> str:
    lists = {
        "SourceRef": "An entry of curate.sources",
        "BenchmarkRef": "An entry of decontaminate.benchmarks and evaluate.benchmarks",
        "Judge": "decontaminate.judge",
        "ModelRef": "train.base",
        "IntoRef": "An entry of merge.into or merge.candidates",
        "AdapterRef": "An entry of a merge's adapters",
        "MixedRef": "An entry of a merge's models",
    }
    return lists.get(name, name.lower())


def _table(title: str, table: dict[str, Any]) -> str:
    lines = [f"## {title}", "", table.get("description", ""), ""]
    lines += ["| key | type | default | what it does |", "|---|---|---|---|"]
    required = set(table.get("required", []))
    for key, field in table["properties"].items():
        default = "required" if key in required else _default(field)
        lines.append(f"| `{key}` | {_type(field)} | {default} | {field.get('description', '')} |")
    return "\n".join(lines) + "\n"


def _default(field: dict[str, Any]) -> str:
    if "default" not in field or isinstance(field["default"], dict):
        return "see below"
    value = field["default"]
    return "none" if value is None else f"`{json.dumps(value)}`"


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return f"table ({_title(field['$ref'].rsplit('/', 1)[1])})"
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"] if choice != {"type": "null"})
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    return str(field.get("type", "any")) + _bounds(field)


def _bounds(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {field[key]}" for key, sign in signs.items() if key in field]
    return f" {', '.join(found)}" if found else ""


def cli_page() -> str:
    """Every command with its arguments, options and examples."""
    group = typer.main.get_command(app)
    parts = [CLI_HEAD]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        usage = " ".join(["monotreme", name, *(_usage(p) for p in command.params)])
        lines = [f"## {name}", "", command.help.strip(), "", f"    {usage}", ""]
        options = [p for p in command.params if getattr(p, "help", None)]
        lines += [f"- `{_flag(p)}`: {p.help}" for p in options]
        examples = command.epilog.replace("[bold]", "").replace("[/bold]", "").split("\n\n")[1:]
        lines += ["", "Examples:", "", *(f"    {line.strip()}" for line in examples), ""]
        parts.append("\n".join(lines))
    return "\n".join([*parts, EXIT_CODES])


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        word = parameter.metavar or parameter.name.upper()
        return str(word) if parameter.required else f"[{word}]"
    return f"[{_flag(parameter)}]"


def _flag(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    flag = max(parameter.opts, key=len)
    if parameter.is_flag:
        return str(flag)
    return f"{flag} {parameter.metavar or parameter.name.upper()}"


def pages() -> dict[Path, str]:
    """Path → content of every generated page."""
    schema = Recipe.model_json_schema()
    return {
        DOCS / "recipe.md": recipe_page(schema),
        DOCS / "cli.md": cli_page(),
        DOCS / "recipe.schema.json": json.dumps(schema, indent=1) + "\n",
    }


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content, encoding="utf-8")
