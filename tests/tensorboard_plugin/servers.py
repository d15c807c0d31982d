"""TensorBoard's two data servers, and its application around the plugin, in this process."""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tensorboard.backend import application
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.data.server_ingester import NoDataServerError, SubprocessServerDataIngester, get_server_binary
from tensorboard.plugins import base_plugin
from tensorboard.util.grpc_util import ChannelCredsType
from werkzeug.test import Client, TestResponse

from gradwatch.tensorboard_plugin.loader import Loader

PREFIX = "/some/where"


class Server(NamedTuple):
    """A data provider, and what makes it look at the files again."""

    provider: Any
    reload: Callable[[], None]


def samples() -> dict[str, int]:
    """How many events the loader has the data server keep."""
    flags = argparse.Namespace(samples_per_plugin=None)
    Loader().fix_flags(flags)
    found: dict[str, int] = flags.samples_per_plugin
    return found


@contextmanager
def python_server(logdir: Path) -> Iterator[Server]:
    multiplexer = EventMultiplexer(tensor_size_guidance=samples())

    def reload() -> None:
        multiplexer.AddRunsFromDirectory(str(logdir))
        multiplexer.Reload()

    reload()
    yield Server(MultiplexerDataProvider(multiplexer, str(logdir)), reload)


@contextmanager
def rust_server(logdir: Path) -> Iterator[Server]:
    try:
        binary = get_server_binary()
    except NoDataServerError as error:
        pytest.skip(str(error))
    ingester = SubprocessServerDataIngester(
        server_binary=binary,
        logdir=str(logdir),
        reload_interval=1,
        channel_creds_type=ChannelCredsType.LOCAL,
        samples_per_plugin=samples(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the process to itself
        ingester.start()
    yield Server(ingester.data_provider, lambda: None)  # it looks by itself, once a second
    ingester._stdin_handle.close()  # which it dies of


SERVERS = {"python": python_server, "rust": rust_server}


def until(server: Server, condition: Callable[[], bool]) -> None:
    """Wait for what was written to be seen."""
    for _ in range(300):
        server.reload()
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("what was written was not seen for 30 s")


class App:
    """TensorBoard with the plugin, asked without a network."""

    def __init__(self, provider: Any) -> None:
        flags = argparse.Namespace(path_prefix=PREFIX, logdir="", logdir_spec="", generic_data="true")
        made = Loader().load(base_plugin.TBContext(data_provider=provider, flags=flags))
        assert made is not None
        self.provider = provider
        self.client = Client(application.TensorBoardWSGI([made], path_prefix=PREFIX, data_provider=provider))

    def get(self, route: str, method: str = "GET", **parameters: Any) -> TestResponse:
        url = f"{PREFIX}/data/plugin/gradwatch/{route}"
        return self.client.open(url, method=method, query_string=parameters)

    def answer(self, route: str, code: int = 200, **parameters: Any) -> Any:
        response = self.get(route, **parameters)
        assert response.status_code == code, response.get_data(as_text=True)
        assert response.headers["Content-Type"] == "application/json"
        return json.loads(response.get_data())
