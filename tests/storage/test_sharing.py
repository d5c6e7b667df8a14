"""Scores on the hub: what is uploaded, how the card describes it, and how it is opened again, also offline."""

from __future__ import annotations

import getpass
import re
import socket
from pathlib import Path

import httpx
import huggingface_hub
import numpy as np
import pytest
import yaml
from headnb import HeadnbError, hub, open_scores, score_heads
from headnb.storage import hub_repository
from headnb.storage.card import escaped
from headnb.storage.hub_repository import parse_address
from headnb.storage.sharing import last_components
from headnb.tasks.loading import load_task

from fake_hub import COMMIT, FakeHub
from hostile_names import NAMES
from paths import ROOT
from scoring_samples import TASK
from stores import score_into
from tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A fake hub, whose uploads are in the cache of the real library; the real library then reads them offline."""
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", fake)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(fake.cache))
    monkeypatch.setattr(hub, "reachable", lambda *_, **__: True)
    return fake


@pytest.fixture
def offline(monkeypatch):
    """A function that takes the network away."""
    return lambda: monkeypatch.setattr(hub, "reachable", lambda *_, **__: False)


def read_card(folder):
    _, metadata, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(metadata), body


def test_pushed_scores_open_offline_by_branch_tag_and_commit(fake, offline):
    scores = score_into(None)
    url = scores.heads.push_to_hub("user/name", token="hf_secret", commit_message="First")
    assert url == f"https://huggingface.co/datasets/user/name/commit/{COMMIT}"
    assert fake.calls == [("token", "hf_secret"), ("upload", "user/name", "First")]
    offline()
    for address in ("hf://user/name", "hf://datasets/user/name@v1", f"hf://user/name@{COMMIT}"):
        assert open_scores(address).identical(scores)
    pattern = open_scores("hf://user/name@main/pattern.heads.json")
    np.testing.assert_allclose(pattern, scores.heads.pattern(), rtol=1e-3)


def test_only_the_file_that_is_opened_is_downloaded_and_the_revision_is_passed_on(monkeypatch, tmp_path):
    asked = {}

    def snapshot_download(repository, **options):
        asked.update(options, repository=repository)
        return str(tmp_path)

    score_into(None).heads.save(tmp_path / "scores.nc")
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr(hub, "reachable", lambda *_, **__: True)
    open_scores("hf://user/name@refs/pr/3")
    patterns = ["scores.nc", "scores.nc/*"]
    expected = {
        "repo_type": "dataset",
        "revision": "refs/pr/3",
        "local_files_only": False,
        "allow_patterns": patterns,
        "repository": "user/name",
    }
    assert asked == expected
    with pytest.raises(HeadnbError, match=r"the data set repository user/name has no a\.zarr"):
        open_scores("hf://user/name/a.zarr")


def test_the_card_describes_the_scores(fake):
    scores = score_into(None)
    scores.heads.push_to_hub("user/name")
    folder = fake.folder("user/name")
    assert {file.name for file in folder.iterdir()} == {"README.md", "scores.nc", "pattern.heads.json", "pattern.png"}
    metadata, body = read_card(folder)
    facts = metadata["headnb"]
    assert (facts["model"], facts["task"], facts["method"], facts["samples"]) == ("tiny", "made up", "activation", 30)
    assert facts["reliability"] == pytest.approx(scores.heads.reliability(), abs=1e-3)
    assert "headnb" in metadata["tags"]
    assert 'headnb.open_scores("hf://user/name")' in body
    assert "(pattern.png)" in body
    assert escaped(scores.heads.evidence().sentence.removeprefix("Reliability ")) in body
    strongest = scores.heads.top(1).index[0]
    assert f"| {strongest} |" in body
    assert (folder / "pattern.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NAMES)
def test_names_stay_text_in_the_card(name):
    from headnb.storage.card import card

    scores = score_into(None).assign_attrs(model=name, task=f"{name}\n---\n# heading\n| a | b |")
    written = card(scores, "user/name")
    assert written.count("\n---\n") == 1
    metadata, body = written.removeprefix("---\n").split("\n---\n")
    assert isinstance(yaml.safe_load(metadata)["headnb"]["model"], str)
    for line in body.splitlines():
        assert not line.startswith("# heading")
        assert "<" not in line.replace("\\<", "")
        assert "javascript:" not in line
        assert not any(letter in line for letter in "\x1b\x07\x9b\u2028\u202e")


def test_no_path_user_or_host_is_uploaded(fake, tmp_path):
    folder = Path(tmp_path) / "private folder" / "my-model"
    model = tiny_model()
    model.save_pretrained(folder)
    model.name_or_path = str(folder)
    scores = score_heads(model, None, load_task(TASK, name=str(tmp_path / "private folder" / "data.jsonl")))
    scores.attrs["weights_source"] = f"converted from {folder}/model.gguf on the way"
    scores["loss"].attrs["comment"] = f"~/private/{getpass.getuser()}/x.bin"
    scores.heads.push_to_hub("somebody/name")
    uploaded = fake.folder("somebody/name")
    for file in uploaded.iterdir():
        content = file.read_bytes()
        for private in (str(tmp_path), str(Path.home()) + "/", "private", socket.gethostname()):
            assert private.encode() not in content, (file.name, private)
    found = open_scores("hf://somebody/name")
    assert found.attrs["task"] == "data.jsonl"
    np.testing.assert_array_equal(found["score"], scores["score"])
    assert found.heads.evidence() == scores.heads.evidence()
    assert scores.attrs["task"].startswith(str(tmp_path))  # the user's own scores are unchanged


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/a model", "a model"),
        ("C:\\Users\\me\\model.gguf", "model.gguf"),
        ("~/models/x", "x"),
        ("~\\models\\x", "x"),
        ("../secret/model", "model"),
        ("../../secret", "secret"),
        ("./runs/secret/a model", "a model"),
        ("..\\secret\\model.gguf", "model.gguf"),
        ("base + ../secret/lora", "base + lora"),
        ("see ... and/or more/less", "see ... and/or more/less"),
        ("meta-llama/Llama-3.1-8B + user/adapter", "meta-llama/Llama-3.1-8B + user/adapter"),
        ("base + /tmp/x/lora", "base + lora"),
        ("weights of /a/b.gguf, dequantized", "weights of b.gguf, dequantized"),
        ("https://host/a/b", "https://host/a/b"),
        ("1/2 of the samples", "1/2 of the samples"),
        ('{"headnb": "0.1.0"}', '{"headnb": "0.1.0"}'),
    ],
)
def test_the_last_component_of_a_path_is_kept(text, expected):
    assert last_components(text) == expected


def test_an_existing_public_repository_is_not_written_to_by_mistake(fake):
    score_into(None).heads.push_to_hub("user/name")
    fake.calls.clear()
    with pytest.raises(HeadnbError, match="exists and is public"):
        score_into(None).heads.push_to_hub("user/name", private=True)
    assert [call[0] for call in fake.calls] == ["token"]


def refuse(status):
    response = httpx.Response(status, request=httpx.Request("POST", "https://huggingface.co/api"))

    def call(*_, **__):
        raise huggingface_hub.errors.HfHubHTTPError(f"{status} error", response=response)

    return call


def test_errors_of_an_upload_say_what_to_do(fake, monkeypatch, offline):
    scores = score_into(None)
    for name in ("name", "a/b/c", "user/na me", "", 3):
        with pytest.raises(HeadnbError, match="has the form 'user/name'"):
            scores.heads.push_to_hub(name)
    for status, message in ((401, "hf auth login"), (403, "pass token="), (500, "cannot upload to user/name: 500")):
        monkeypatch.setattr(fake, "create_repo", refuse(status))
        with pytest.raises(HeadnbError, match=message):
            scores.heads.push_to_hub("user/name")
    with pytest.raises(HeadnbError, match="expected scores"):
        (scores * 2).heads.push_to_hub("user/name")
    with pytest.raises(HeadnbError, match="select one with"):
        scores.expand_dims(stage=2).heads.push_to_hub("user/name")
    offline()
    with pytest.raises(HeadnbError, match="the hub is not reachable"):
        scores.heads.push_to_hub("user/name")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RepositoryNotFoundError", "no such data set repository; a private one needs a login"),
        ("RevisionNotFoundError", "no such branch, tag or commit"),
        ("GatedRepoError", "accept its terms"),
        ("HfHubHTTPError", "cannot read hf://user/name: went wrong"),
    ],
)
def test_errors_of_a_download_say_what_to_do(monkeypatch, kind, message):
    def snapshot_download(*_, **__):
        request = httpx.Request("GET", "https://huggingface.co")
        raise getattr(huggingface_hub.errors, kind)("went wrong", response=httpx.Response(404, request=request))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr(hub, "reachable", lambda *_, **__: True)
    with pytest.raises(HeadnbError, match=message):
        open_scores("hf://user/name")


@pytest.mark.usefixtures("no_network")
def test_scores_that_are_not_in_the_cache_are_reported_offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(HeadnbError, match="is not in the hub's cache, and the hub is not reachable"):
        open_scores("hf://user/name")


def test_addresses():
    assert parse_address("hf://user/name") == ("user/name", None, "")
    assert parse_address("hf://datasets/user/name@v1.0/a/b.zarr/") == ("user/name", "v1.0", "a/b.zarr")
    assert parse_address("hf://user/name@refs/pr/1/a.nc") == ("user/name", "refs/pr/1", "a.nc")
    assert parse_address("hf://user/name@feature%2Fx") == ("user/name", "feature/x", "")
    assert hub_repository.checked_repository("A-b/c.d_e") == "A-b/c.d_e"


@pytest.mark.long
@pytest.mark.usefixtures("fake")
def test_the_page_of_the_documentation_runs(monkeypatch, tmp_path, offline):
    import headnb

    text = (ROOT / "docs" / "sharing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(headnb, "load_model", lambda _: (tiny_model(context=2048), tiny_tokenizer()), raising=False)
    names = {}
    for block in blocks:
        if "hf://" in block:
            offline()
        exec(block.replace("s3://", "memory://").replace("steps=20", "steps=2"), names)
    for name in ("again", "shared", "pinned", "remote"):
        np.testing.assert_array_equal(names[name]["score"], names["scores"]["score"])
    assert names["url"].endswith(COMMIT)
    assert names["nearest"].table["compared"].to_dict() == {"gsm_symbolic": 32, "sentence_reordering": 64}
    assert list(names["atlas"].table["kind"]) == ["task", "task", "adapter"]
