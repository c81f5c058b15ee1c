from pathlib import Path
from types import SimpleNamespace

from chibit.training import loading


def test_each_target_has_a_film_of_its_own(monkeypatch):
    filmed = []
    monkeypatch.setattr(loading, "film", lambda agent, spec, path, **asked: filmed.append(asked))
    run = SimpleNamespace(own_folder=Path)
    loaded = loading.LoadedRun(None, None, 1, None, (), run, None)
    paths = loaded.film((3600.0, 1_000_001.0, 1_000_002.0, -0.5), seed=3)
    names = [path.name for path in paths]
    assert names == ["target-3600.mp4", "target-1000001.mp4", "target-1000002.mp4", "target--0.5.mp4"]
    assert [path.name for path in loaded.film(None, seed=3)] == ["policy.mp4"]
    assert [asked["target_return"] for asked in filmed] == [3600.0, 1_000_001.0, 1_000_002.0, -0.5, None]
