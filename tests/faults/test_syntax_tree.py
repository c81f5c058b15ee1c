"""Calls that are never made, in the package, its benchmarks and scripts: held over the syntax tree."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "chibit"
FILES = [
    path for place in ("src/chibit", "benchmarks", "scripts") for path in sorted((ROOT / place).rglob("*.py"))
]
NEVER = {
    "eval", "exec", "os.system", "os.popen", "marshal.load", "marshal.loads", "shelve.open", "joblib.load",
    "dill.load", "dill.loads", "cloudpickle.load", "yaml.load", "yaml.unsafe_load", "pandas.read_pickle",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "tempfile.mktemp",
}  # fmt: skip
MEASURES_PEERS = {"benchmarks/loading.py"}
"""Times `pickle.load` on a file that it has just written itself, for comparison."""
SPAWNS = {
    "data/readers/sandbox.py",
    "data/readers/minari_download.py",
    "evaluation/video.py",
    "training/provenance.py",
}
"""Modules that start processes, each with a list of arguments of their own."""
IMPORTS_BY_NAME = {"__init__.py", "cli.py", "core/plugins.py"}
"""Modules that import by a name, which comes from a table in them; the last one's from the user alone."""
PATHS = {
    "data/collect/behavior/ladder.py": {"env_name"},  # a key of a table
    "core/checkpoint.py": {"name", "step", "candidate"},  # own names and numbers
    "core/platform.py": {"folder", "own.strip"},  # of a table; as the kernel says it
    "core/home.py": {"name", "steps", "suffix"},  # of a recipe
    "core/run_dir.py": {"name", "config", "usual"},  # of a log; a name that is there, with a hash
    "core/files.py": {"entry.name"},  # of a folder that was listed
    "core/temporary.py": {"secrets.token_hex", "suffix"},  # begins with letters; a file's own suffix
    "core/shared_folder.py": {"name"},  # of a list that admits nothing outside, or files that were listed
    "data/collect/atari.py": {"dataset"},  # matched against a pattern
    "data/collect/scripted.py": {"dataset_id"},  # made of a pattern's parts
    "environments/memory.py": {"self.length"},  # a number
    "data/readers/dqn_replay.py": {"game", "kind", "number"},  # a key of a table, and numbers
    "data/load.py": {
        "game",
        "name",
        "name_or_path",
        "origin",
        "columns",
        "source",
        "reading",
    },  # made readable
    "data/collect/mujoco.py": {"entry.dataset_id"},  # of a table
    "quickstart.py": {"find_collectable(DATASET).dataset_id"},  # likewise
    "data/text/corpus.py": {"readable", "key", "odd"},  # letters and digits; a file that was listed
    "data/readers/d4rl.py": {"name", "known.stem"},  # of an id in a table
    "data/readers/sandbox.py": {"name"},  # own columns
    "data/readers/minari_download.py": {"dataset_id"},  # passed check_name
    "data/collect/minari_writer.py": {"dataset_id"},  # of a table
    "data/resolve.py": {"dataset_id", "name"},  # passed check_name, or a pattern
    "data/store.py": {"name", "path.name"},  # own columns; of a store that was opened
    "data/text/synthetic.py": {"kind", "digest"},  # of a table
    "data/collect/language.py": {"dataset"},  # a known name
    "data/text/tokens.py": {"name"},  # compared with own names before
    "data/readers/unpickler.py": {"name"},  # own columns
    "evaluation/attention.py": {"name"},
    "judging/fitting.py": {"key"},  # of a digest
    "losses/similarity.py": {"key.hexdigest"},
    "models/hub.py": {"name", "pickles"},  # _shard_names admits no folders; a file that was listed
    "models/language_model.py": {"name"},  # of a table
    "reporting/report.py": {"kind", "name"},  # keys and values of a table
    "reporting/read/run.py": {"name"},  # own names
    "reporting/figures/media.py": {"folder", "name"},  # own names
    "reporting/read/strict_json.py": {"name"},  # own names
    "training/loading.py": {"name"},
    "training/pretrain/config.py": {"name", "config.seed", "config"},  # letters, digits and dashes alone
    # The arm passed check_name.
    "training/run_config.py": {"config.arm_name", "readable", "config.seed", "digest"},
    "commands/study.py": {"arguments.name"},  # a key of a table
}
"""Variables that are joined to a folder, with why they cannot leave it. Whoever adds to this has looked at
where the name comes from; one from a file or a user goes through `core.files.check_name`."""
FOLDERS = re.compile(r"(folder|path|root|temporary|Path|home|place|entry|study|parent|\bout)(\b|_)")


@cache
def trees():
    """The syntax tree of each file, by its name."""
    return {
        path.relative_to(SOURCE if path.is_relative_to(SOURCE) else ROOT).as_posix(): ast.parse(
            path.read_text()
        )
        for path in FILES
    }


PACKAGE = {path.relative_to(SOURCE).as_posix() for path in FILES if path.is_relative_to(SOURCE)}
"""Names in `trees()` of the modules of the package."""


def calls(tree):
    """Every call: the function, its arguments and its keywords, as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            yield ast.unparse(node.func), [ast.unparse(argument) for argument in node.args], keywords


def harmless(name, function, keywords):
    """Whether a call neither runs nor loads what a file says."""
    if function in NEVER:
        return name in MEASURES_PEERS
    if function == "torch.load":
        return keywords.get("weights_only") == "True"
    if function.endswith(("extractall", ".extract")):
        return keywords.get("filter") == "'data'"
    if function in ("np.load", "numpy.load"):
        return keywords.get("allow_pickle") in (None, "False")
    return keywords.get("shell") in (None, "False")


def guarded(name, function, arguments):
    """Whether what starts a process, imports by name or makes an environment is where it is looked after."""
    if function.startswith(("subprocess.", "os.exec", "os.spawn", "os.posix_spawn")):
        return name in SPAWNS
    if function in ("importlib.import_module", "__import__"):
        return bool(arguments and arguments[0].startswith("'")) or name in IMPORTS_BY_NAME
    if function.endswith((".make", ".make_vec")) and function.startswith(("gym", "gymnasium")):
        # kinds.py, language.py: an id of the registry; own.py: the like of what the caller gave.
        return name in ("environments/kinds.py", "environments/language.py", "environments/own.py")
    if function == "h5py.File":
        return name in ("data/readers/hdf5.py", "data/collect/minari_writer.py")
    return True


OPENS = {
    "core/files.py",  # the guarded ways to read and to write
    "core/arrays.py",  # what `core/files.py` opened, as arrays
    "core/tensors.py",  # safetensors, which take a path, after `check_regular`
    "core/temporary.py",  # names that no one else has
    "core/shared_folder.py",  # moves what was written aside, after a look at what is there
    "core/platform.py",  # flushes, and reads tables of /proc
    "data/readers/unpickler.py",  # a program of its own, which imports nothing of the package
    "data/readers/hdf5.py",  # HDF5 files, which take a path, after `check_regular`
    "data/collect/minari_writer.py",  # a new file below `atomic_folder`
}
"""The only modules that open, replace or remove files by themselves."""
OPENING = re.compile(
    r"(.*\.)?(read_text|read_bytes|write_text|write_bytes|unlink|rename|renames|rmtree|rmdir|touch"
    r"|symlink_to|hardlink_to|link_to|tofile|fromfile|memmap|loadtxt|genfromtxt|safe_open|load_file|save_file)"
    r"|open|(os|io|gzip|bz2|lzma|codecs|tarfile|shelve|mmap)\.(open|replace|remove|truncate|link|symlink|mmap)"
    r"|(os\.)?(removedirs)|gzip\.open|shutil\.(copy\w*|move|rmtree|unpack_archive)|tempfile\.\w+"
    r"|zipfile\.ZipFile|tarfile\.TarFile|FileIO|io\.FileIO|np\.(load|savez?|savez_compressed)|h5py\.File"
)
IN_MEMORY = {
    ("evaluation/attention.py", "np.savez_compressed", "buffer"),
    ("data/readers/sandbox.py", "np.save", "file"),
    ("data/store.py", "np.save", "file"),
    ("data/store.py", "shutil.copyfileobj", "source"),
    ("data/readers/minari_spaces.py", "Image.open", "io.BytesIO(content)"),
    ("data/text/tokens.py", "np.memmap", "file"),
    ("core/run_dir.py", "self.path.rmdir"),
    ("core/run_dir.py", "folder.rmdir"),
}
"""Calls on a file that is open already, or on none, or on a folder that has to be empty."""


def opens(function, arguments):
    """Whether a call opens, replaces or removes a file by its path."""
    if OPENING.fullmatch(function):
        return True
    owner, _, method = function.rpartition(".")
    if method == "open" and owner:  # of Path, not of archives, runs and HDF5
        return owner not in ("RunDir", "h5py.h5o") and not owner.endswith("archive")
    return method == "replace" and len(arguments) == 1 and bool(owner) and owner != "dataclasses"


def variables(node):
    """What an expression is made of: variables and attributes, without constants and functions.

    A name that `check_name` gives back holds no way out of a folder.
    """
    if isinstance(node, ast.Call):
        if ast.unparse(node.func) in ("check_name", "len"):
            return set()
        method = variables(node.func) if isinstance(node.func, ast.Attribute) else set()
        return method.union(*(variables(argument) for argument in node.args))
    if isinstance(node, (ast.Name, ast.Attribute)):
        return set() if ast.unparse(node).isupper() else {ast.unparse(node)}
    return set().union(*(variables(child) for child in ast.iter_child_nodes(node)))


def joined_to_folders(tree):
    """(place, variable) of every variable in what is joined to a folder with `/`."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)):
            continue
        name, left = ast.unparse(node.right), ast.unparse(node.left)
        is_path = isinstance(node.right, ast.JoinedStr) or bool(FOLDERS.search(left))
        is_number = any(word in name for word in ("steps", "num_", "len(", "total"))
        if is_path and (isinstance(node.right, ast.JoinedStr) or not is_number):
            yield from ((f"{left} / {name}", variable) for variable in variables(node.right))


def test_calls_that_run_or_load_what_a_file_says_are_never_made():
    assert not [
        f"{name}: {function}"
        for name, tree in trees().items()
        for function, _, keywords in calls(tree)
        if not harmless(name, function, keywords)
    ]


def test_processes_imports_and_environments_stay_where_they_are_guarded():
    assert not [
        f"{name}: {function}({', '.join(arguments)})"
        for name in PACKAGE
        for function, arguments, _ in calls(trees()[name])
        if not guarded(name, function, arguments)
    ]


def test_every_name_that_becomes_part_of_a_path_was_looked_at():
    """Of an offender: see where the name comes from, check it, add it to PATHS."""
    assert not [
        f"{name}: {variable} in {place}"
        for name in PACKAGE
        for place, variable in joined_to_folders(trees()[name])
        if variable not in PATHS.get(name, ())
    ]


def test_files_are_opened_replaced_and_removed_in_a_few_modules_alone():
    """Of an offender: use `core.files`, `core.arrays`, `core.tensors`, `core.shared_folder`."""
    found = [
        (name, function, *arguments[:1])
        for name in PACKAGE - OPENS
        for function, arguments, keywords in calls(trees()[name])
        if opens(function, [*arguments, *keywords] if function.endswith("replace") else arguments)
    ]
    assert set(found) - IN_MEMORY == set()


@pytest.mark.parametrize(
    "line",
    ["open(path)", "path.open()", "(folder / 'a').open('w')", "path.read_text()", "path.read_bytes()",
     "path.write_text(text)", "path.write_bytes(data)", "np.load(path)", "np.memmap(path)",
     "os.open(path, 0)",
     "shutil.rmtree(folder)", "rmtree(folder)", "path.rename(other)", "path.replace(other)", "path.unlink()",
     "os.replace(a, b)", "os.rename(a, b)", "os.remove(a)", "os.unlink(a)", "gzip.open(path)", "os.rmdir(a)",
     "io.open(path)", "tempfile.mkdtemp()", "zipfile.ZipFile(path)", "safe_open(path)", "np.save(path, a)",
     "shutil.copyfile(a, b)", "shutil.move(a, b)", "path.touch()"],
)  # fmt: skip
def test_the_check_of_files_sees(line):
    [(function, arguments, _)] = list(calls(ast.parse(line)))[:1]
    assert opens(function, arguments)


@pytest.mark.parametrize("line", ["text.replace('a', 'b')", "replace(config, a=1)", "RunDir.open(path)"])
def test_the_check_of_files_lets_pass(line):
    [(function, arguments, _)] = calls(ast.parse(line))
    assert not opens(function, arguments)


@pytest.mark.parametrize(
    "line",
    ["eval(text)", "pickle.load(file)", "torch.load(path)", "archive.extractall(folder)",
     "np.load(path, allow_pickle=True)", "run(command, shell=True)"],
)  # fmt: skip
def test_the_check_of_calls_sees(line):
    [(function, _, keywords)] = calls(ast.parse(line))
    assert not harmless("core/files.py", function, keywords)


@pytest.mark.parametrize(
    "line",
    ["subprocess.run(command)", "importlib.import_module(name)", "gym.make(name)", "h5py.File(path)"],
)
def test_the_check_of_places_sees(line):
    [(function, arguments, _)] = calls(ast.parse(line))
    assert not guarded("core/files.py", function, arguments)


@pytest.mark.parametrize(
    ("line", "found"),
    [("folder / name", {"name"}), ("folder / f'{a.b}-{c:d}.npy'", {"a.b", "c"}), ("folder / 'x.npy'", set()),
     ("folder / NAME", set()), ("folder / check_name(name, 'x')", set()), ("x / f'{name}'", {"name"})],
)  # fmt: skip
def test_the_check_of_paths_sees(line, found):
    assert {variable for _, variable in joined_to_folders(ast.parse(line))} == found
