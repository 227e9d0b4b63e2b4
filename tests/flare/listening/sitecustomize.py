"""Python imports this at its start if this folder is on its path: keeps a copy of every frame that NVFlare sends.

The copies go to a file for each process, in the folder that the environment variable FLARETUNE_LISTEN names.
"""

import importlib.util
import os
import sys

MODULE = "nvflare.fuel.f3.sfm.sfm_conn"


class Listener:
    """Changes the module when it is imported, and not before: most processes never do."""

    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_listen(module):
            load(module)
            listen(module.SfmConnection)

        spec.loader.exec_module = load_and_listen
        return spec


def listen(connection):
    """Let connections keep what they send."""
    send = connection.send_frame

    def send_frame(self, prefix, headers, payload):
        role = (
            "client" if any("simulator_worker" in word or word.endswith("_train.py") for word in sys.argv) else "server"
        )
        with open(os.path.join(os.environ["FLARETUNE_LISTEN"], f"{role}_{os.getpid()}"), "ab") as file:
            file.write(repr(headers).encode() + b"\n" + bytes(payload or b"") + b"\n")
        return send(self, prefix, headers, payload)

    connection.send_frame = send_frame


if "FLARETUNE_LISTEN" in os.environ:
    sys.meta_path.insert(0, Listener())
