"""A reader of the feed that shares no code with catrust: it checks signatures,
certificates and digests by the rules at the head of trust_service.proto.

Usage: feed.py ADDRESS TOKEN INSTANCE PUBLIC_KEY_FILE [NATS_MESSAGES_FILE]

NATS_MESSAGES_FILE has one JSON object a line: subject, sequence, headers, body.
Prints one JSON object with what it has checked.
"""

import hashlib
import json
import pathlib
import struct
import sys

import blake3
from contract import Contract
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from google.protobuf.descriptor import FieldDescriptor

CONTEXTS = {
    "TrustBundle": "catrust/trust-bundle/v1",
    "TrustChange": "catrust/trust-change/v1",
    "Head": "catrust/head/v1",
    "LogEvent": "catrust/log-event/v1",
}
# Fields that came later: left out where they are empty, and with them another context.
LATER = {("Head", "nonce"): "catrust/head/v2", ("LogEvent", "epoch"): "catrust/log-event/v2"}
WORDS = 1024


def netstring(data):
    return str(len(data)).encode() + b":" + data + b","


def fields(message):
    """Every field but the signature, in the order of field numbers."""
    out = b""
    for field in sorted(message.DESCRIPTOR.fields, key=lambda field: field.number):
        value = getattr(message, field.name)
        if field.name == "signature" or ((message.DESCRIPTOR.name, field.name) in LATER and not value):
            continue
        values = value if field.is_repeated else [value]
        out += b"".join(netstring(encoded(field, value)) for value in values)
    return out


def encoded(field, value):
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        if field.message_type.full_name == "google.protobuf.Timestamp":
            assert value.nanos % 1000 == 0, "microsecond precision"
            return str(value.seconds * 1_000_000 + value.nanos // 1000).encode()
        return fields(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return field.enum_type.values_by_number[value].name.encode()
    if field.type == FieldDescriptor.TYPE_BOOL:
        return b"true" if value else b"false"
    return str(value).encode()


class Reader:
    def __init__(self, key_file):
        self.key = serialization.load_pem_public_key(pathlib.Path(key_file).read_bytes())
        raw = self.key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.key_id = hashlib.sha256(raw).hexdigest()[:16]

    def check(self, message):
        """Raises unless the signature is right, and unless each change of a field breaks it."""
        name = message.DESCRIPTOR.name
        later = [LATER[name, field.name] for field, _ in message.ListFields() if (name, field.name) in LATER]
        context = later[0] if later else CONTEXTS[name]
        signed = netstring(context.encode()) + fields(message)
        assert message.signature.key_id == self.key_id
        self.key.verify(message.signature.value, signed)
        for wrong in (signed[:-1], netstring(b"catrust/other/v1") + fields(message)):
            try:
                self.key.verify(message.signature.value, wrong)
            except Exception:
                continue
            raise AssertionError("a signature over anything")


def check_entry(entry):
    """The names of an entry must be those of its certificate."""
    certificate = x509.load_pem_x509_certificate(entry.ca_content.encode())
    der = certificate.public_bytes(serialization.Encoding.DER)
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert entry.sha256 == hashlib.sha256(der).hexdigest()
    assert entry.spki_sha256 == hashlib.sha256(spki).hexdigest()
    serial = f"{certificate.serial_number:X}"
    assert entry.sn == ("0" + serial if len(serial) % 2 else serial)
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert entry.subject_key_id == identifier.digest.hex()
    assert entry.not_before.seconds == int(certificate.not_valid_before_utc.timestamp())
    assert entry.not_after.seconds == int(certificate.not_valid_after_utc.timestamp())


def digest(entries):
    """LtHash16 over the entries, then SHA-256."""
    state = [0] * WORDS
    for entry in entries:
        element = b"catrust/bundle-entry/v1\0" + bytes.fromhex(entry.sha256) + bytes.fromhex(entry.spki_sha256)
        element += bytes([entry.state, 0 if entry.state == 1 else entry.inactivation_scope])
        expanded = struct.unpack(f"<{WORDS}H", blake3.blake3(element).digest(length=WORDS * 2))
        state = [(a + b) % 65536 for a, b in zip(state, expanded)]
    return hashlib.sha256(b"catrust/bundle-digest/v1\0" + struct.pack(f"<{WORDS}H", *state)).hexdigest()


def watch(contract, reader, instance):
    """Folds the feed from revision 0 and checks every step."""
    call = contract.method("catrust.v1.TrustService", "WatchTrust")
    entries, revision, seen = {}, 0, {"bundle": 0, "change": 0, "head": 0}
    stream = call(mqtt_instance_id=instance, after_revision=0, timeout=30)
    for message in stream:
        kind = message.WhichOneof("message")
        content = getattr(message, kind)
        reader.check(content)
        assert content.mqtt_instance_id == instance
        seen[kind] += 1
        if kind == "bundle":
            entries = {entry.sha256: entry for entry in content.entries}
            revision = content.revision
        elif kind == "change":
            assert content.previous_revision == revision and content.revision == revision + 1
            revision = content.revision
            check_entry(content.entry)
            entries.pop(content.entry.sha256, None)
            if not content.deleted:
                entries[content.entry.sha256] = content.entry
        elif content.revision == revision:
            lifetime = content.valid_until.seconds - content.issued_at.seconds
            assert 9 <= lifetime <= 11, lifetime
            assert content.bundle_digest == digest(entries.values())
            break
        assert content.bundle_digest == digest(entries.values()), (kind, revision)
    stream.cancel()
    return entries, revision, seen


def bundle(contract, reader, instance, entries, revision):
    reply = contract.method("catrust.v1.TrustService", "GetTrustBundle")(mqtt_instance_id=instance)
    reader.check(reply.bundle)
    assert reply.bundle.revision == revision
    names = [entry.sha256 for entry in reply.bundle.entries]
    assert names == sorted(entries), "ascending by sha256"
    for entry in reply.bundle.entries:
        check_entry(entry)
        assert entry == entries[entry.sha256], "the fold and the bundle agree"


def nats(contract, reader, path):
    """Messages as they came from JetStream: sequence, headers and body agree."""
    kinds = {"trust": "TrustChange", "log": "LogEvent"}
    count = 0
    for line in pathlib.Path(path).read_text().splitlines():
        record = json.loads(line)
        family, instance, last = record["subject"].removeprefix("catrust.v1.").split(".")
        message = contract.parse(f"catrust.v1.{kinds[family]}", record["body"])
        reader.check(message)
        assert message.position == record["sequence"], record["subject"]
        assert message.mqtt_instance_id == instance
        headers = {name.lower(): value for name, value in record["headers"].items()}
        assert headers["ce-specversion"] == "1.0"
        assert headers["ce-id"] == message.event_id
        for attribute in ("ce-source", "ce-type", "ce-time"):
            assert headers[attribute], attribute
        assert message.event_type in headers["ce-type"]
        if family == "trust":
            assert message.entry.sha256 == last
            check_entry(message.entry)
        else:
            assert message.event_type == last
            json.loads(message.payload)
        count += 1
    return count


def main(address, token, instance, key_file, nats_file=None):
    contract = Contract(address, token or None)
    contract.load("catrust.v1.TrustService")
    reader = Reader(key_file)
    entries, revision, seen = watch(contract, reader, instance)
    bundle(contract, reader, instance, entries, revision)
    published = nats(contract, reader, nats_file) if nats_file else 0
    print(json.dumps({"revision": revision, "entries": len(entries), "published": published, **seen}))


if __name__ == "__main__":
    main(*sys.argv[1:])
