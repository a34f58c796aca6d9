"""Every error this project raises on purpose, in one tree.

```
SegZeroError
├── InputError                what the caller handed over cannot be used
│   ├── ImageError            not an image, damaged, unsupported, or over a limit
│   ├── RequestError          the natural-language request is empty or too long
│   ├── MaskError             a mask or a run-length encoding is malformed or hostile
│   ├── GeometryError         a box, a point or a frame is not valid
│   └── DatasetError          a data set on disk is missing or malformed
├── ConfigError               a setting or an option is wrong
│   ├── PresetError           no preset of that name
│   └── LabellingConfigError  a Label Studio labelling config that cannot be served
├── ModelError                a model cannot be loaded or did not answer
│   ├── WeightsError          weights are missing, in a refused format, or fail their check
│   ├── RegistryError         model versions cannot be kept, read or found
│   └── RemoteReasonerError   the remote reasoning server failed
├── FetchError                an image could not be fetched
│   ├── ForbiddenAddressError the address is not allowed to be fetched
│   └── ImageHostError        its host does not answer, is overloaded, or lets nobody in
├── LabelStudioError          Label Studio failed or refused
│   ├── LabelStudioUnreachableError  nothing answers at its address
│   └── LabelStudioAuthError         the token is wrong, expired or not permitted
└── QueueError                corrections cannot be kept or passed on
    ├── StoreError            Redis does not start, answer, or take what is written
    ├── SpoolError            the spool on disk cannot be read or written
    │   └── SpoolFullError    the spool has no room left
    └── JobError              a job is not known, not allowed, or failed
```

Foreign errors (httpx, Pillow, safetensors, ...) are translated once, where the
foreign library is called. Each message says what is wrong; `remedy` says what the
user can do about it.
"""

from __future__ import annotations


class SegZeroError(Exception):
    """Base of the tree.

    Args:
        message: What is wrong, in one sentence.
        remedy: What the user can do about it; may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class InputError(SegZeroError):
    """What the caller handed over cannot be used."""


class ImageError(InputError):
    """Not an image, damaged, unsupported, or over a limit."""


class RequestError(InputError):
    """The natural-language request is empty or too long."""


class MaskError(InputError):
    """A mask or a run-length encoding is malformed or hostile."""


class GeometryError(InputError):
    """A box, a point or a frame is not valid."""


class DatasetError(InputError):
    """A data set on disk is missing or malformed."""


class ConfigError(SegZeroError):
    """A setting or an option is wrong."""


class PresetError(ConfigError):
    """No preset of that name."""


class LabellingConfigError(ConfigError):
    """A Label Studio labelling config that cannot be served."""


class ModelError(SegZeroError):
    """A model cannot be loaded or did not answer."""


class WeightsError(ModelError):
    """Weights are missing, in a refused format, or fail their check."""


class RegistryError(ModelError):
    """Model versions cannot be kept, read or found."""


class RemoteReasonerError(ModelError):
    """The remote reasoning server failed."""


class FetchError(SegZeroError):
    """An image could not be fetched."""


class ForbiddenAddressError(FetchError):
    """The address is not allowed to be fetched."""


class ImageHostError(FetchError):
    """Its host does not answer, is overloaded, or lets nobody in; the image may well be there.

    Args:
        message: What is wrong, in one sentence.
        remedy: What the user can do about it; may be empty.
        host: Which host, with its port where that is unusual.
    """

    def __init__(self, message: str, remedy: str = "", *, host: str) -> None:
        super().__init__(message, remedy)
        self.host = host


class LabelStudioError(SegZeroError):
    """Label Studio failed or refused."""


class LabelStudioUnreachableError(LabelStudioError):
    """Nothing answers at Label Studio's address."""


class LabelStudioAuthError(LabelStudioError):
    """The token is wrong, expired or not permitted."""


class QueueError(SegZeroError):
    """Corrections cannot be kept or passed on."""


class StoreError(QueueError):
    """Redis does not start, answer, or take what is written."""


class SpoolError(QueueError):
    """The spool on disk cannot be read or written."""


class SpoolFullError(SpoolError):
    """The spool has no room left."""


class JobError(QueueError):
    """A job is not known, not allowed, or failed."""
