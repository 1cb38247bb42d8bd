"""Make the pages that are read off the code: recipe.md, cli.md and the recipe's JSON Schema.

`make docs` writes them; tests/test_docs.py fails when they lag behind.
"""

import json
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from monotreme.cli import app
from monotreme.recipe import Recipe, tables

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
codes are listed at the end. `monotreme --version` tells the version; `-h` or `--help` after a command all
that it takes.

`--set` may be given several times. What follows `=` is read as YAML, so that a list or a table is written
as in the recipe, in quotes that keep the shell out. It takes the place of the whole value:

    --set train.learning_rate=3e-4
    --set 'train.targets=[q_proj, v_proj]'
    --set 'decontaminate.drop=[duplicate]'
    --set 'curate.sources=[math, {id: mine, path: mine.jsonl, license: MIT}]'
    --set 'merge.into=[]'
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
| 9 | the engine: its workers cannot be had, or one needs more memory than it may have |
| 130 | stopped with Ctrl-C; the same command goes on from there |
"""


def recipe_page(schema: dict[str, Any]) -> str:
    """The recipe's tables and keys, from its JSON Schema."""
    parts = [RECIPE_HEAD, _table(Recipe, "The recipe", schema)]
    parts += [_table(getattr(tables, name), _title(name), schema["$defs"][name]) for name in ORDER]
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


def _table(model: type[BaseModel], title: str, table: dict[str, Any]) -> str:
    lines = [f"## {title}", "", table.get("description", ""), ""]
    lines += ["| key | type | default | what it does |", "|---|---|---|---|"]
    required = set(table.get("required", []))
    for key, field in table["properties"].items():
        value = model.model_fields[key].get_default(call_default_factory=True)
        default = "required" if key in required else _default(value)
        lines.append(f"| `{key}` | {_type(field)} | {default} | {field.get('description', '')} |")
    return "\n".join(lines) + "\n"


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "its own"
    if isinstance(value, list):
        value = [item.id if isinstance(item, BaseModel) else item for item in value]
    return "none" if value in (None, [], {}) else f"`{json.dumps(value)}`"


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
    """Every command with its arguments, options, their defaults, and examples."""
    group: Any = typer.main.get_command(app)
    # What does things and what looks at a run come before what asks a model.
    commands = sorted(group.commands.items(), key=lambda item: _module(item[1]) == "answers")
    return "\n".join([CLI_HEAD, *(_command(*item) for item in commands), EXIT_CODES])


def _module(command: Any) -> str:
    return str(command.callback.__module__.rsplit(".", 1)[1])


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    needed = [p for p in command.params if p not in arguments and p.required]
    usage = ["monotreme", name, *(_usage(p) for p in arguments), *(_flag(p) for p in needed)]
    lines = [f"## {name}", "", command.help.strip(), "", f"    {' '.join(usage)} [OPTIONS]", ""]
    lines += ["| word | default | what it does |", "|---|---|---|"]
    lines += [f"| `{_flag(p)}` | {_preset(p)} | {p.help} |" for p in command.params if _told(p)]
    examples = command.epilog.replace("[bold]", "").replace("[/bold]", "").split("\n\n")[1:]
    return "\n".join(
        [*lines, "", "Examples:", "", *(f"    {line.strip()}" for line in examples), ""]
    )


def _told(parameter: Any) -> bool:
    return bool(getattr(parameter, "help", None)) and parameter.name != "help"


def _usage(argument: Any) -> str:
    return _flag(argument) if argument.required else f"[{_flag(argument)}]"


def _flag(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    flag = max(parameter.opts, key=len)
    if parameter.is_flag:
        return "` / `".join([str(flag), *parameter.secondary_opts])
    return f"{flag} {parameter.metavar or parameter.name.strip('_').upper()}"


def _preset(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return str(parameter.show_default)
    value = parameter.default
    if value is None:
        return "none"
    if isinstance(value, bool):
        flag = (parameter.opts, parameter.secondary_opts)[not value]
        return f"`{flag[0]}`" if flag else "off"
    choices = getattr(parameter.type_descriptor.annotation, "__members__", {})
    others = [f"`{choice}`" for choice in choices if choice != value]
    return f"`{value}`" + (f" (or {', '.join(others)})" if others else "")


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
