"""Every error that hotswap raises, in one tree.

A class's docstring is its default message, so that a bare ``raise NotFound`` still says
something. None of them knows HTTP: `hotswap.server.errors` translates, once.
"""

from __future__ import annotations


class HotswapError(Exception):
    """Something went wrong inside hotswap."""

    def __init__(self, message: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").split("\n", 1)[0]
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class BadInput(HotswapError):
    """The request cannot be understood."""


class Unauthorized(HotswapError):
    """A valid token is needed: send 'Authorization: Bearer TOKEN'."""


class Forbidden(HotswapError):
    """This is not allowed."""


class UntrustedCode(Forbidden):
    """This artifact can run code when it is loaded, and the operator has not allowed that."""


class NotFound(HotswapError):
    """There is no such thing here."""


class MethodNotAllowed(HotswapError):
    """This route does not take that method."""


class ReceiveTimeout(HotswapError):
    """The request took too long to arrive."""


class Conflict(HotswapError):
    """That cannot be done in the present state."""


class SignatureMismatch(Conflict):
    """The version's signature does not fit the model's."""


class TooLarge(HotswapError):
    """The request is larger than this server accepts."""


class UnsupportedMedia(HotswapError):
    """This content type or encoding is not supported."""


class WrongHost(HotswapError):
    """This server does not answer for that Host."""


class HeadersTooLarge(HotswapError):
    """The request's headers are larger than this server accepts."""


class Retryable(HotswapError):
    """Try again later."""

    def __init__(self, message: str | None = None, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(Retryable):
    """Too many requests are waiting."""


class Unavailable(Retryable):
    """Nothing is ready to answer this yet."""


class DeadlineExceeded(HotswapError):
    """The deadline passed before there was an answer."""


class OutOfMemory(HotswapError):
    """There is not enough memory for this."""


class ModelFailed(HotswapError):
    """The model failed on this request."""


class InvalidOutput(ModelFailed):
    """The model's output is not valid."""


class HostLost(ModelFailed):
    """The model's process died on this request."""


class ConfigError(HotswapError):
    """The configuration is not valid."""


class MissingDependency(ConfigError):
    """A package that this needs is not installed."""


class LoadError(HotswapError):
    """The version could not be loaded."""


class DigestMismatch(LoadError):
    """The artifact's content is not what was registered."""


class RegistryRefused(LoadError):
    """The model registry refuses this: asked again it would say the same."""


class StoreError(HotswapError):
    """The store cannot be used."""


class MetricsUnavailable(HotswapError):
    """The metric source cannot be reached."""
