"""A device of the demonstration: MQTT 3.1.1 over mutual TLS, with Python alone.

    device.py NAME HOST PORT SERVER_CA CERTIFICATE KEY

It connects, says `up`, and stays, answering nothing and asking for a sign of life
every 200 ms. When the connection ends it says when, and tries to come back twice:
by a full handshake, and by resuming its TLS session. It says what it got, and
goes on trying once a second, until it is let in again.
"""

import socket
import ssl
import sys
import time

NAME, HOST, PORT, SERVER_CA, CERTIFICATE, KEY = sys.argv[1:]


def say(*words):
    print(*words, flush=True)


def context():
    made = ssl.create_default_context(cafile=SERVER_CA)
    made.check_hostname = False
    # TLS 1.2, where Python can resume a session that it was given.
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(CERTIFICATE, KEY)
    return made


TLS = context()


def connect(session=None):
    """A connected MQTT session; raises OSError with the reason otherwise."""
    raw = socket.create_connection((HOST, int(PORT)), timeout=5)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        tls = TLS.wrap_socket(raw, session=session)
        client_id = NAME.encode()
        body = b"\x00\x04MQTT\x04\x02\x00\x3c" + len(client_id).to_bytes(2, "big") + client_id
        tls.sendall(bytes([0x10, len(body)]) + body)
        answer = tls.recv(4)
    except OSError:
        raw.close()
        raise
    if len(answer) < 4:
        raise OSError("closed before CONNACK")
    if answer[3] != 0:
        raise OSError(f"CONNACK {answer[3]}: refused at CONNECT")
    return tls


def reason(error):
    text = getattr(error, "reason", None) or str(error)
    return text.replace("_", " ").lower()


def attempt(kind, session=None):
    try:
        tls = connect(session)
    except OSError as error:
        say(f"{kind}: refused ({reason(error)})")
        return None
    reused = " (resumed)" if tls.session_reused else ""
    say(f"{kind}: let in{reused}")
    return tls


def hold(tls):
    """Stays until the other side ends it; gives the time in microseconds."""
    tls.settimeout(0.2)
    while True:
        try:
            if not tls.recv(64):
                break
        except TimeoutError:
            try:
                tls.sendall(b"\xc0\x00")
            except OSError:
                break
        except OSError:
            break
    return time.time_ns() // 1000


def main():
    tls = connect()
    session = tls.session
    say("up")
    while True:
        say(f"closed {hold(tls)}")
        attempt("full handshake")
        attempt("resumption", session)
        while True:
            try:
                tls = connect()
                break
            except OSError:
                time.sleep(0.2)
        session = tls.session
        say("back")


main()
