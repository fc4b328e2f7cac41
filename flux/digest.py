"""SHA-256 for short texts. Pure.

It is what `hashlib` has where there is no OpenSSL, and hashes a few kilobytes in no time. To load
OpenSSL takes longer than to hash the migrations of most projects.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        if sys.version_info >= (3, 12):
            from _sha2 import sha256
        else:
            from _sha256 import sha256
    except ImportError:  # a Python that was built without it
        from hashlib import sha256

__all__ = ["sha256"]
