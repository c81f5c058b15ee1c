"""Calls that are never made, in the package, its benchmarks and scripts: held over the syntax tree."""

import ast
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
    "data/limited.py", "data/minari_download.py", "data/trajectory_lists.py", "evaluation/video.py",
    "training/provenance.py",
}  # fmt: skip
"""Modules that start processes, each with a list of arguments of their own."""
IMPORTS_BY_NAME = {"__init__.py", "cli.py", "data/limited.py"}
"""Modules that import by a name, which comes from a table in them."""
PATHS = {
    "behaviour/ladder.py": {"f'{env_name}.safetensors'"},  # a key of a table
    "core/checkpoint.py": {
        "f'{step:010d}'", "f'{candidate:010d}'", "f'{TEMPORARY_PREFIX}prune-{step}'", "name",
    },  # numbers, and own names
    "core/home.py": {"f'{name}-{steps}{suffix}'"},  # of a recipe
    "core/run_dir.py": {"name"},  # of a log
    "data/atari_collect.py": {"dataset"},  # matched against a pattern
    "data/atari_frames.py": {"f'{FRAMES}.npy'"},
    "data/atari_replay.py": {
        "game",
        "f'add_count_ckpt.{number}.gz' if kind == 'add_count' else f'$store$_{kind}_ckpt.{number}.gz'",
    },  # a key of a table, and numbers
    "data/catalog.py": {
        "game", "f'{_readable(name)}-{_content_hash(origin, columns)}'",
        "f'{_readable(name_or_path)}-{_source_hash(source.path)}'",
    },  # letters, digits and dots alone
    "data/collect.py": {"entry.dataset_id"},  # of a table
    "data/corpus.py": {"f'{readable}-{key}'", "odd[0]"},  # letters and digits; a file that was listed
    "data/d4rl.py": {"file_name", "name"},  # of an id in a table
    "data/limited.py": {"f'{name}.npy'"},  # own columns
    "data/minari_download.py": {"dataset_id"},  # passed check_name
    "data/minari_writer.py": {"dataset_id"},  # of a table
    "data/sources.py": {"dataset_id", "name"},  # passed check_name, or a pattern
    "data/store.py": {"f'{RECORDS}.npy'", "f'{name}.npy'", "name"},  # own columns
    "data/synthetic.py": {"f'{kind}-{digest}'"},  # of a table
    "data/text.py": {"name"},  # compared with own names before
    "data/unpickling.py": {"f'{name}.npy'"},  # own columns
    "evaluation/attention.py": {"f'{name}.npz'", "f'{name}.png'"},
    "losses/similarity.py": {"f'{key.hexdigest()[:32]}.safetensors'"},
    "models/hub.py": {"name", "pickles[0]"},  # _shard_names admits no folders; a file that was listed
    "models/language_model.py": {"name"},  # of a table
    "reporting/media.py": {"folder"},  # own names
    "reporting/strict_json.py": {"name"},  # own names
    "training/filming.py": {"f'{name}.mp4'"},
    "training/hub_folder.py": {"path.name"},  # a file that was listed
    "training/pretrain_config.py": {
        "check_name(study, 'study')", "f'{name}-s{config.seed}-{config_hash(config)}'",
    },  # letters, digits and dashes alone
    "training/run_config.py": {
        "check_name(study, 'study')", "f'{config.arm_name}-{readable}-s{config.seed}-{digest}'",
    },  # arm passed check_name
    "verbs/study.py": {"arguments.name"},  # a key of a table
}  # fmt: skip
"""What is joined to a folder and is no constant, with why it cannot leave that folder. Whoever adds to this
has looked at where the name comes from; one from a file or a user goes through `core.files.check_name`."""
FOLDERS = ("folder", "path", "root", "temporary", "Path", "home", "place", "entry", "study", "out")


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            yield ast.unparse(node.func), [ast.unparse(argument) for argument in node.args], keywords


def short(path):
    return path.relative_to(SOURCE if path.is_relative_to(SOURCE) else ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=short)
def test_calls_that_run_or_load_what_a_file_says_are_never_made(path):
    for function, _, keywords in calls(ast.parse(path.read_text())):
        where = f"{short(path)}: {function}"
        if short(path) not in MEASURES_PEERS and not function.startswith("self."):
            assert function not in NEVER, where
        if function == "torch.load":
            assert keywords.get("weights_only") == "True", where
        if function.endswith(("extractall", ".extract")):
            assert keywords.get("filter") == "'data'", where
        assert keywords.get("shell") in (None, "False"), where
        if function in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle") in (None, "False"), where


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(SOURCE)], ids=short)
def test_processes_imports_and_environments_stay_where_they_are_guarded(path):
    name = short(path)
    for function, arguments, _ in calls(ast.parse(path.read_text())):
        where = f"{name}: {function}({', '.join(arguments)})"
        if function.startswith("subprocess.") or function.startswith(
            ("os.exec", "os.spawn", "os.posix_spawn")
        ):
            assert name in SPAWNS, where
        if function in ("importlib.import_module", "__import__"):
            is_constant = arguments and arguments[0].startswith("'")
            assert is_constant or name in IMPORTS_BY_NAME, where
        if function.endswith((".make", ".make_vec")) and function.startswith(("gym", "gymnasium")):
            assert name == "envs.py", f"{where}: environments are made behind the allow-list"
        if function == "h5py.File":
            assert name in ("data/hdf5.py", "data/minari_writer.py"), f"{where}: HDF5 is read by data/hdf5.py"


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(SOURCE)], ids=short)
def test_every_name_that_becomes_part_of_a_path_was_looked_at(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)):
            continue
        name, left = ast.unparse(node.right), ast.unparse(node.left)
        is_constant = isinstance(node.right, ast.Constant) or name.upper() == name
        is_path = isinstance(node.right, ast.JoinedStr) or any(word in left for word in FOLDERS)
        is_number = any(word in name for word in ("steps", "num_", "len(", "total"))
        if is_path and not is_constant and not is_number:
            assert name in PATHS.get(short(path), ()), (
                f"{short(path)}: {left} / {name}: see where the name comes from, check it, add it to PATHS"
            )
