"""A process that stands for a stage: on its socket it sends back each byte plus one, as long as it lives.

A `!` first makes it end the connection after a last word, as a real one does when a frame is wrong.
"""

import os
import socket
import sys
import threading


def serve(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(1 << 16):
            if data.startswith(b"!"):
                connection.sendall(b"last word")
                return
            connection.sendall(bytes((byte + 1) % 256 for byte in data))


def listen(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)  # noqa: T201 - its parent waits for it
        while True:
            serve(listener.accept()[0])


threading.Thread(target=listen, args=(sys.argv[1],), daemon=True).start()
while os.read(0, 4096):
    pass
os._exit(0)
