"""The core's cache is keyed by everything that is compiled into it."""

from pathlib import Path

from runtime import compiled


def test_every_module_with_compiled_code_is_part_of_the_key() -> None:
    root = Path(compiled.__file__).parents[1]
    for module in (root / "runtime").glob("*.py"):
        if "\n@compiled\n" in module.read_text():
            assert module.stem in compiled._SOURCES["runtime"]


def test_every_module_of_the_key_exists() -> None:
    root = Path(compiled.__file__).parents[1]
    for folder, modules in compiled._SOURCES.items():
        for module in modules:
            assert (root / folder / f"{module}.py").is_file()
