# SPDX-License-Identifier: Apache-2.0
"""A package is a floor, and every import points down; no module imports itself through others."""

import ast
from collections.abc import Iterator
from pathlib import Path

import guestmem

ROOT = Path(guestmem.__file__).parent

#: The floors that stand on each other, from the ground up: each may import those before it.
TOWER = ["model", "rules", "machine", "mm", "guest_memfd", "hypervisors"]

#: What each package may import, itself apart.
MAY = {package: set(TOWER[:floor]) for floor, package in enumerate(TOWER)} | {
    "checker": {"model"},
    "linux": set(),
    "scenarios": {*TOWER, "checker"},
    "contract": {*TOWER, "linux"},
    "upstream": {*TOWER, "scenarios"},
    "own": {*TOWER, "scenarios"},
    "report": {*TOWER, "checker", "linux", "scenarios", "upstream", "own"},
    "mutation": {"model", "checker", "scenarios"},
}

#: Those that nobody may import but themselves and the command.
TOP = {"cli", "__main__"}


def name_of(file: Path) -> str:
    """The module that a file is."""
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in sorted(ROOT.rglob("*.py"))}


def imports(module: str, *, typing: bool) -> Iterator[str]:
    """The modules of the package that a module imports: when it is loaded or run, or only for its types."""

    def walk(node: ast.AST, only_types: bool) -> Iterator[str]:
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body, orelse=orelse):
                yield from (name for child in body for name in walk(child, True))
                yield from (name for child in orelse for name in walk(child, only_types))
            case ast.Import(names=names) if only_types == typing:
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(name), names=names) if only_types == typing:
                yield from ((f"{name}.{alias.name}" if f"{name}.{alias.name}" in MODULES else name) for alias in names)
            case _:
                for child in ast.iter_child_nodes(node):
                    yield from walk(child, only_types)

    return (name for name in walk(ast.parse(MODULES[module].read_text()), False) if name in MODULES)


def package_of(module: str) -> str:
    """The floor that a module belongs to; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def test_every_import_points_down() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        if package_of(module) in MAY
        for typing in (False, True)
        for name in imports(module, typing=typing)
        if package_of(name) not in {"", package_of(module), *MAY[package_of(module)]}
    ]
    assert wrong == []


def test_nobody_imports_the_top() -> None:
    below = [module for module in MODULES if package_of(module) not in TOP]
    assert [(m, n) for m in below for typing in (False, True) for n in imports(m, typing=typing) if package_of(n) in TOP] == []


def test_every_package_stands_on_a_floor() -> None:
    assert {package_of(module) for module in MODULES} <= {"", *MAY, *TOP}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the next and the last the first; empty if there are none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        found = next((c for name in sorted(graph[module]) if (c := visit(name, [*path, module]))), [])
        done.add(module)
        return found

    return next((found for module in graph if (found := visit(module, []))), [])


def test_no_module_imports_itself_through_others() -> None:
    assert circle({module: set(imports(module, typing=False)) - {module} for module in MODULES}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c"]


def test_types_add_no_circle_to_the_checker() -> None:
    checker = [module for module in MODULES if package_of(module) == "checker"]
    graph = {module: {name for typing in (False, True) for name in imports(module, typing=typing)} for module in checker}
    assert circle({module: names.intersection(checker) - {module} for module, names in graph.items()}) == []
