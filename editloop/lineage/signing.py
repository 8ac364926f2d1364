"""Signatures with a P-256 key: of models, checked before they are loaded, and of short texts, such as a closing.

A model's signature is a Sigstore bundle over the sha256 of every file in the folder, the manifest included, made by
`model-signing`. Only those who register models or run campaigns need the private key; checking needs the public one. A
key's id is the sha256 of its public half in PEM, 64 hex characters.
"""

import base64
import os
from pathlib import Path
from typing import Any, NamedTuple

from editloop.content import sha256_bytes, write_file
from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError
from editloop.text_file import LARGEST_TEXT, file_bytes

SIGNING_KEY, VERIFY_KEY = "EDITLOOP_SIGNING_KEY", "EDITLOOP_VERIFY_KEY"


class SignatureError(EditLoopError):
    """A model or text without a signature, or with one of an untrusted key or of other content."""


class SigningSettings(EnvironmentSettings):
    """The keys for signing and checking."""

    signing_key: Path | None = None
    """PEM file of the private key (elliptic curve), for registering models and keeping campaigns' records."""
    verify_key: str | None = None
    """PEM file of the public key, for loading models and reading records. Separate several with ":", for example to
    keep trusting a replaced key."""


class TextSignature(NamedTuple):
    """A signature of bytes."""

    key: str
    """Id of the key that made it."""
    value: str
    """The ECDSA signature over their SHA-256, in base64."""


class Keys(NamedTuple):
    """Paths of a key pair's PEM files. The private one has mode 600."""

    private: Path
    public: Path


def keys_in(folder: Path) -> Keys:
    """Return the paths at which `make_keys` keeps a folder's key pair.

    Args:
        folder: The folder.
    """
    return Keys(folder / "signing-key.pem", folder / "verify-key.pem")


def make_keys(folder: Path) -> Keys:
    """Make a key pair in a folder. A private key that exists already is kept.

    Args:
        folder: The folder.

    Returns:
        The paths of the pair.

    Raises:
        EditLoopError: The existing private key cannot be read.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = keys_in(folder)
    if not keys.private.is_file():
        private = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_file(keys.private, private)  # mode 600: mkstemp's
    write_file(keys.public, _public_pem(SIGNING_KEY, keys.private))
    return keys


def sign_folder(folder: Path, signature: Path) -> str:
    """Sign a complete folder with the key in EDITLOOP_SIGNING_KEY, and return the key's id.

    Args:
        folder: The folder.
        signature: File to write the signature to.

    Raises:
        EditLoopError: There is no usable key, or the folder cannot be signed.
    """
    path = _signing_key("models are signed when they are registered")
    key = sha256_bytes(_public_pem(SIGNING_KEY, path))
    from model_signing import signing

    config = signing.Config().set_hashing_config(_hashing()).use_elliptic_key_signer(private_key=path)
    try:
        config.sign(folder, signature)
    except ValueError as error:
        raise EditLoopError(f"{folder}: cannot be signed: {error}.") from error
    return key


def verify_folder(folder: Path, signature: Path) -> str:
    """Check that a signature covers exactly a folder's files and was made by a trusted key, and return the key's id.

    Trusted keys are those in EDITLOOP_VERIFY_KEY.

    Args:
        folder: The folder.
        signature: File of the signature.

    Raises:
        SignatureError: The signature is unreadable, of another key or of other files. It is an EditLoopError too.
        EditLoopError: EDITLOOP_VERIFY_KEY is unset or holds no usable key.
    """
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    keys = _verify_keys("a model's signature is checked before it is loaded")
    key = _signed_by(signature)
    if key not in keys:
        raise SignatureError(
            f"{folder}: signed with key {key[:12]}, and {VERIFY_KEY} holds {', '.join(key_id[:12] for key_id in keys)} "
            "alone. Add the public key where you trust it, with `:` before it; else do not load this model."
        )
    config = verifying.Config().set_hashing_config(_hashing()).use_elliptic_key_verifier(public_key=keys[key])
    try:
        config.verify(folder, signature)
    except InvalidSignature as error:
        raise SignatureError(f"{folder}: its signature was changed: key {key[:12]} did not make it.") from error
    except Exception as error:  # the library raises many kinds of errors for foreign bundles
        raise SignatureError(f"{folder}: its signature is not of these files: {error}") from error
    return key


def sign_bytes(data: bytes) -> TextSignature:
    """Sign bytes with the key in EDITLOOP_SIGNING_KEY.

    Args:
        data: What to sign.

    Raises:
        EditLoopError: There is no usable key.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    path = _signing_key("what is recorded of campaigns is signed")
    key, private = sha256_bytes(_public_pem(SIGNING_KEY, path)), _read_key(SIGNING_KEY, path)
    return TextSignature(key, base64.b64encode(private.sign(data, ec.ECDSA(hashes.SHA256()))).decode())


def verify_bytes(data: bytes, signature: TextSignature) -> None:
    """Check that a trusted key signed these bytes. Trusted keys are those in EDITLOOP_VERIFY_KEY.

    Args:
        data: The bytes.
        signature: Their signature.

    Raises:
        SignatureError: The signature is of another key or of other bytes.
        EditLoopError: EDITLOOP_VERIFY_KEY is unset or holds no usable key.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    keys = _verify_keys("the signatures of campaigns' records are checked")
    if signature.key not in keys:
        raise SignatureError(f"signed with key {signature.key[:12] or 'none'}, which {VERIFY_KEY} does not hold")
    public = _read_key(VERIFY_KEY, keys[signature.key])
    try:
        public.verify(base64.b64decode(signature.value), data, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(f"not what key {signature.key[:12]} signed") from error


def _hashing() -> Any:
    """Hashing of every file, including those that git handles itself, such as .git and .gitignore."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)


def _signing_key(reason: str) -> Path:
    """The private key's file. `reason` says why it is needed."""
    path = SigningSettings().signing_key
    if path is None:
        raise EditLoopError(
            f"{SIGNING_KEY} is not set: {reason}. Give it the PEM file of a private key; `editloop up` makes one and "
            "prints it."
        )
    return path


def _verify_keys(reason: str) -> dict[str, Path]:
    """The trusted public keys' files, by key id. `reason` says why they are needed."""
    key_paths = SigningSettings().verify_key
    if key_paths is None:
        raise EditLoopError(
            f"{VERIFY_KEY} is not set: {reason}. Give it the PEM file of the public key; `editloop up` makes one and "
            "prints it."
        )
    paths = map(Path, key_paths.split(os.pathsep))
    return {sha256_bytes(_public_pem(VERIFY_KEY, path)): path for path in paths}


def _public_pem(variable: str, path: Path) -> bytes:
    """The public key in the PEM file of a key, or of a private key where `variable` is SIGNING_KEY."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = _read_key(variable, path)
    public = key.public_key() if variable == SIGNING_KEY else key
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise EditLoopError(f"{variable}={path}: not a key of an elliptic curve; `editloop up` makes one.")
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read_key(variable: str, path: Path) -> Any:
    """The key in a PEM file: a private one where `variable` is SIGNING_KEY, else a public one."""
    from cryptography.hazmat.primitives import serialization

    is_private = variable == SIGNING_KEY
    try:
        data = path.read_bytes()
        if is_private:
            return serialization.load_pem_private_key(data, None)
        return serialization.load_pem_public_key(data)
    except (OSError, ValueError, TypeError) as error:
        kind = "private" if is_private else "public"
        raise EditLoopError(f"{variable}={path}: no {kind} key in PEM can be read there ({error}).") from error


def _signed_by(signature: Path) -> str:
    """The id of the key that a signature claims to be made with."""
    import json

    try:
        bundle = json.loads(file_bytes(signature, LARGEST_TEXT))
        return str(bundle["verificationMaterial"]["publicKey"]["hint"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SignatureError(f"{signature}: no signature can be read there ({error!r}).") from error
