"""Signs a dossier with a private key, and checks a signature, through the model-signing library (extra [sign]).

The signature is a Sigstore bundle over the digest of every other file of the folder. The library's own command makes
and checks the same one: docs/audit.md, which also shows signing without a key.
"""

from pathlib import Path
from typing import Any

from vivit.files.paths import is_file
from vivit.reference.values import one_line

SIGNATURE = "signature.json"


def check_key(key: str | Path) -> None:
    """Raises ValueError unless a key is a file; ModuleNotFoundError without the library."""
    import model_signing  # noqa: F401

    if not is_file(key):
        raise ValueError(f"{key} is not a file: it must be a key in PEM format")


def sign(folder: Path, private_key: str | Path) -> None:
    """Writes the signature of a folder into it. private_key: of an elliptic curve, in PEM format, without a password.

    Raises ValueError if the key cannot be read.
    """
    from model_signing import signing

    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key)
    except (ValueError, TypeError) as error:  # of the cryptography library
        raise ValueError(f"{private_key} cannot be used: {one_line(str(error))}") from None
    config.set_hashing_config(_hashing(folder)).sign(folder, folder / SIGNATURE)


def signature_fault(folder: Path, public_key: str | Path) -> str | None:
    """Returns why a folder's signature is not that of this key for these files; None if it is.

    Raises ValueError if the key cannot be read.
    """
    from model_signing import verifying

    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (ValueError, TypeError) as error:  # of the cryptography library
        raise ValueError(f"{public_key} cannot be used: {one_line(str(error))}") from None
    try:
        config.set_hashing_config(_hashing(folder)).verify(folder, folder / SIGNATURE)
    except Exception as error:  # the library raises many types of errors for damaged bundles
        reason = one_line(str(error)).partition(": [")[0]  # without its lists of bytes
        return reason or type(error).__name__
    return None


def _hashing(folder: Path) -> Any:
    """Every file but the signature."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[folder / SIGNATURE], ignore_git_paths=False)
