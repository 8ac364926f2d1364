"""A signature holds for these files and this key, and for nothing else."""

import json
from pathlib import Path

import pytest

from editloop.content import complete_folder
from editloop.errors import EditLoopError
from editloop.lineage.signing import (
    SIGNING_KEY,
    VERIFY_KEY,
    Keys,
    SignatureError,
    make_keys,
    sign_folder,
    verify_folder,
)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    made = make_keys(tmp_path / "keys")
    monkeypatch.setenv(SIGNING_KEY, str(made.private))
    monkeypatch.setenv(VERIFY_KEY, str(made.public))
    return made


@pytest.fixture
def signed(tmp_path: Path, keys: Keys) -> tuple[Path, Path]:
    """A folder and its signature."""
    with complete_folder(tmp_path / "model") as folder:
        (folder / "weights.safetensors").write_bytes(b"1234")
        (folder / "part").mkdir()
        (folder / "part" / "config.json").write_text("{}")
    sign_folder(tmp_path / "model", tmp_path / "signature")
    return tmp_path / "model", tmp_path / "signature"


def test_what_was_signed_is_verified_also_under_another_name(signed: tuple[Path, Path], tmp_path: Path) -> None:
    folder, signature = signed
    key = verify_folder(folder, signature)
    assert len(key) == 64
    folder.rename(tmp_path / "moved")
    assert verify_folder(tmp_path / "moved", signature) == key


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json", "part/config.json"])
def test_a_changed_file_is_named(signed: tuple[Path, Path], name: str) -> None:
    folder, signature = signed
    (folder / name).write_text("other")
    with pytest.raises(SignatureError, match=f"not of these files.*{name}"):
        verify_folder(folder, signature)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"17", b'{"verificationMaterial": [1]}', b"[" * 100_000, b"\xff"]
)
def test_what_is_no_signature_is_one_line(signed: tuple[Path, Path], content: bytes) -> None:
    folder, signature = signed
    signature.write_bytes(content)
    with pytest.raises(SignatureError, match="no signature can be read there") as caught:
        verify_folder(folder, signature)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["more.bin", ".gitattributes"])
def test_a_file_more_is_refused(signed: tuple[Path, Path], name: str) -> None:
    folder, signature = signed
    (folder / name).write_text("surplus")
    with pytest.raises(SignatureError, match=name):
        verify_folder(folder, signature)


def test_a_signature_that_was_tampered_with_is_refused(signed: tuple[Path, Path]) -> None:
    folder, signature = signed
    bundle = json.loads(signature.read_text())
    sig = bundle["dsseEnvelope"]["signatures"][0]["sig"]
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = sig[:12] + ("A" if sig[12] != "A" else "B") + sig[13:]
    signature.write_text(json.dumps(bundle))
    with pytest.raises(SignatureError, match="signature"):
        verify_folder(folder, signature)
    for text in ("", "{}", "[]", '{"verificationMaterial": 3}', "\x00"):
        signature.write_text(text)
        with pytest.raises(SignatureError, match="no signature can be read"):
            verify_folder(folder, signature)


def test_another_key_is_not_trusted_until_it_is_named(
    signed: tuple[Path, Path], keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, signature = signed
    other = make_keys(tmp_path / "other").public
    monkeypatch.setenv(VERIFY_KEY, str(other))
    with pytest.raises(SignatureError, match=f"signed with key .*{VERIFY_KEY}"):
        verify_folder(folder, signature)
    monkeypatch.setenv(VERIFY_KEY, f"{other}:{keys.public}")
    verify_folder(folder, signature)


def test_a_claimed_key_without_its_signature_is_refused(
    signed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed by a stranger who writes the trusted key's id into the bundle."""
    folder, signature = signed
    trusted = json.loads(signature.read_text())["verificationMaterial"]
    monkeypatch.setenv(SIGNING_KEY, str(make_keys(tmp_path / "stranger").private))
    sign_folder(folder, signature)
    signature.write_text(json.dumps(json.loads(signature.read_text()) | {"verificationMaterial": trusted}))
    with pytest.raises(SignatureError, match="did not make it"):
        verify_folder(folder, signature)


def test_without_usable_keys_the_variable_is_named(
    signed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, signature = signed
    (tmp_path / "no.pem").write_text("no key")
    for path in (tmp_path / "no.pem", tmp_path / "missing.pem"):
        monkeypatch.setenv(SIGNING_KEY, str(path))
        monkeypatch.setenv(VERIFY_KEY, str(path))
        with pytest.raises(EditLoopError, match=f"{SIGNING_KEY}={path}"):
            sign_folder(folder, signature)
        with pytest.raises(EditLoopError, match=f"{VERIFY_KEY}={path}"):
            verify_folder(folder, signature)
    monkeypatch.delenv(SIGNING_KEY)
    monkeypatch.delenv(VERIFY_KEY)
    with pytest.raises(EditLoopError, match=f"{SIGNING_KEY} is not set.*editloop up"):
        sign_folder(folder, signature)
    with pytest.raises(EditLoopError, match=f"{VERIFY_KEY} is not set.*editloop up"):
        verify_folder(folder, signature)


def test_keys_stay_and_the_private_one_is_its_owners_alone(keys: Keys) -> None:
    before = keys.private.read_bytes()
    assert make_keys(keys.private.parent) == keys
    assert keys.private.read_bytes() == before
    assert keys.private.stat().st_mode & 0o077 == 0
