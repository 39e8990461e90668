"""Speaks TLS with a server as Python's ssl does, and checks what a client relies on.

usage: tls_client.py PORT CERTIFICATE OTHER_CERTIFICATE
"""

import http.client
import json
import socket
import ssl
import sys
import warnings

port, certificate, other = int(sys.argv[1]), sys.argv[2], sys.argv[3]
body = json.dumps({"prompt": "the", "max_tokens": 5, "ignore_eos": True, "seed": 1, "temperature": 0})


def context(trusted=certificate):
    return ssl.create_default_context(cafile=trusted)


def connect(tls, name="localhost"):
    return tls.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname=name)


def refuses(tls, name="localhost"):
    try:
        with connect(tls, name) as connection:
            # Of TLS 1.3 a client hears with the first bytes that it is refused.
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return connection.recv(1) == b""
    except (ssl.SSLError, ConnectionError):
        return True


def get(path):
    client = http.client.HTTPSConnection("localhost", port, context=context())
    client.request("GET", path)
    return json.loads(client.getresponse().read())


for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    tls = context()
    tls.minimum_version = tls.maximum_version = version
    tls.set_alpn_protocols(["h2", "http/1.1"])
    with connect(tls) as connection:
        assert connection.version() == version.name.replace("_", "."), connection.version()
        assert connection.selected_alpn_protocol() == "http/1.1"
    with connect(tls, "127.0.0.1"):
        pass
old = context()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
old.set_ciphers("ALL:@SECLEVEL=0")
assert refuses(old), "TLS 1.1 is spoken"
assert refuses(context(other)), "another certificate would do as well"
assert refuses(context(), "elsewhere.example"), "the name is not looked at"
with socket.create_connection(("127.0.0.1", port)) as plain:
    plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert not plain.recv(100).startswith(b"HTTP/"), "what is not TLS is answered"

client = http.client.HTTPSConnection("localhost", port, context=context())
texts = []
for _ in range(2):
    client.request("POST", "/v1/completions", body)
    texts.append(json.loads(client.getresponse().read())["choices"][0]["text"])
assert texts[0] == texts[1] != ""

# A client that leaves takes its answer with it.
with connect(context()) as connection:
    endless = json.dumps({"prompt": "the", "max_tokens": 60000, "ignore_eos": True, "stream": True})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(endless)}\r\n\r\n"
    connection.sendall((head + endless).encode())
    received = b""
    while b"data: " not in received:
        received += connection.recv(4096)
    assert get("/slots")["open"] == 1
while get("/slots")["open"] != 0:
    pass
print("as it should be")
