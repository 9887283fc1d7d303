"""Connect to a Docker engine and map the library's errors to ours. Only this module imports the Docker SDK.

Importing the SDK takes 0.2 s, so it is imported when it is needed. The most common requests to an engine on this
machine do without it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from mailstack import library_errors
from mailstack.engine.unix_api import UnixApi
from mailstack.errors import EngineError, HostError, MailstackError
from mailstack.target.target import Target


class HasTarget(Protocol):
    """An object that has the target whose engine it queries."""

    @property
    def target(self) -> Target:
        """Return the target."""


P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=HasTarget)


def mapped(function: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Turn errors of the SDK, and of the libraries below it, into EngineError: those in `errors`, and no others."""

    @functools.wraps(function)
    def inner(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(self, *args, **kwargs)
        except MailstackError:
            raise
        except Exception as error:
            if (user_error := _user_error(self.target, error)) is error:
                raise
            raise user_error from None

    return inner


def _user_error(target: Target, error: Exception) -> Exception:
    """Return the error for the user, or the error itself when it does not come from the engine."""
    return errors(target).of(error) or error


def errors(target: Target) -> library_errors.Table:
    """Return the table that maps the libraries' errors to errors for the user of a target."""

    def refused(error: Exception) -> EngineError:
        return EngineError(f"the Docker engine {target.where} refused: {getattr(error, 'explanation', '') or error}")

    def unusable(error: Exception) -> HostError:
        if "Error while fetching server API version" in str(error):
            return silent(error)
        return EngineError(
            f"no Docker engine answers {target.where}: {error}",
            remedy="see DOCKER_HOST, `docker context ls` and ~/.docker/config.json",
        )

    def silent(error: Exception) -> HostError:
        return target.no_answer_error(str(error))

    return library_errors.Table(
        {
            refused: library_errors.DOCKER_REFUSED,
            unusable: library_errors.DOCKER_UNUSABLE,
            silent: library_errors.DOCKER_SILENT,
        }
    )


_IMPORTING = threading.Lock()


def sdk() -> Any:
    """Return the SDK. One thread at a time imports it, because its modules import each other in circles."""
    with _IMPORTING:
        import docker

        return docker


@contextlib.contextmanager
def ignore_missing() -> Iterator[None]:
    """Ignore the engine's reply 404: the object does not exist (any more)."""
    try:
        yield
    except Exception as error:
        if (getattr(error, "status", None) or getattr(error, "status_code", None)) != 404:
            raise


class Client:
    """A client of a target's engine. It connects with the first request; safe to use from several threads."""

    def __init__(self, target: Target) -> None:
        self.target = target

    @functools.cached_property
    def _api(self) -> Any:
        # Negotiate the version of the API: engines from 29 on refuse the version that 20.10 speaks.
        url = self.target.url
        try:
            return sdk().APIClient(base_url=url, version="auto", timeout=60)
        except ValueError as error:  # for example, a port that is not a number
            if (user_error := _user_error(self.target, error)) is not error:
                raise user_error from None
            raise EngineError(f"no Docker engine answers at {url}: {error}", remedy="see DOCKER_HOST") from None

    @functools.cached_property
    def _quick(self) -> Any:
        """The API for the requests of every `up` and `down`; it needs the SDK only for an engine on another machine."""
        url = self.target.url
        return UnixApi(url.removeprefix("unix://")) if url.startswith("unix://") else self._api


class Pieces:
    """A response in pieces. Errors of reading it are mapped; errors of the code that consumes the pieces are not."""

    def __init__(self, target: Target, stream: Any) -> None:
        self.target = target
        self._stream = stream

    def __iter__(self) -> Iterator[Any]:
        return self

    @mapped
    def __next__(self) -> Any:
        return next(self._stream)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
