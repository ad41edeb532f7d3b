"""An auditor who shares no code with catrust: checks an export of the log, a proof of one
event, and a file of checkpoints, by the documents alone (RFC 9162, c2sp.org/signed-note,
c2sp.org/tlog-checkpoint, the comments of audit_service.proto).

Usage: evidence.py PUBLIC_KEY_FILE EXPORT_FILE PROOF_FILE CHECKPOINTS_FILE

Prints one JSON object with what holds; ends with an exception where something does not.
"""

import base64
import datetime
import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives import serialization

COLUMNS = [
    "position", "event_id", "stream_id", "stream_version", "instance_id", "revision", "bundle_digest", "sn",
    "event_type", "schema_version", "payload", "actor", "account_id", "policy_version", "source_address",
    "request_id", "traceparent", "occurred_at",
]  # fmt: skip
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def row_hash(previous, row):
    assert set(row) <= {*COLUMNS, "hash"}, set(row)
    text = b""
    for column in COLUMNS:
        value = row.get(column, "")
        if column == "occurred_at":
            since = datetime.datetime.fromisoformat(value.replace("Z", "+00:00")) - EPOCH
            value = since // datetime.timedelta(microseconds=1)
        encoded = str(value).encode()
        text += b"%d:%s," % (len(encoded), encoded)
    return sha256(previous, text)


def leaf(data):
    return sha256(b"\0", data)


def node(left, right):
    return sha256(b"\1", left, right)


def tree_root(leaves):
    """MTH of RFC 9162, section 2.1.1."""
    if not leaves:
        return sha256()
    if len(leaves) == 1:
        return leaf(leaves[0])
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    return node(tree_root(leaves[:middle]), tree_root(leaves[middle:]))


def root_from_path(data, index, size, path):
    """RFC 9162, section 2.1.3.2."""
    assert index < size
    fn, sn, r = index, size - 1, leaf(data)
    for p in path:
        assert sn > 0, "the path is too long"
        if fn & 1 or fn == sn:
            r = node(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node(r, p)
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0, "the path is too short"
    return r


class Notes:
    def __init__(self, key_file):
        self.key = serialization.load_pem_public_key(pathlib.Path(key_file).read_bytes())
        form = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        self.raw = self.key.public_bytes(*form)

    def open(self, note):
        """Size and root of a signed checkpoint."""
        text, signatures = note.rsplit("\n\n", 1)
        text += "\n"
        dash, name, value = signatures.rstrip("\n").split(" ")
        assert dash == "\u2014"
        value = base64.b64decode(value, validate=True)
        assert value[:4] == sha256(name.encode(), b"\n\1", self.raw)[:4], "another key"
        self.key.verify(value[4:], text.encode())
        origin, size, root = text.splitlines()[:3]
        assert origin == name
        return int(size), base64.b64decode(root, validate=True)


def check_export(path, notes):
    lines = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    header, rows, footer = lines[0], lines[1:-1], lines[-1]
    assert header["catrust_export"] == 1
    previous, hashes = bytes(32), []
    for number, row in enumerate(rows, 1):
        assert row["position"] == number
        previous = row_hash(previous, row)
        assert previous.hex() == row["hash"], f"position {number}"
        hashes.append(previous)
    size, root = notes.open(footer["checkpoint"])
    assert (size, root) == (len(rows), tree_root(hashes))
    return hashes


def check_proof(path, notes):
    proof = json.loads(pathlib.Path(path).read_text())
    assert proof["catrust_event_proof"] == 1
    row = proof["row"]
    hashed = row_hash(bytes.fromhex(proof["previous_hash"]), row)
    assert hashed.hex() == row["hash"]
    size, root = notes.open(proof["checkpoint"])
    path = [bytes.fromhex(text) for text in proof["inclusion_path"]]
    assert root_from_path(hashed, row["position"] - 1, size, path) == root
    return row


def check_checkpoints(path, notes, hashes):
    """Each checkpoint of the file is a beginning of the exported log."""
    sizes = []
    text = ""
    for line in pathlib.Path(path).read_text().splitlines(keepends=True):
        text += line
        if line.startswith("\u2014 "):
            size, root = notes.open(text)
            assert tree_root(hashes[:size]) == root, f"checkpoint of {size}"
            sizes.append(size)
            text = ""
    assert text == ""
    return sizes


def main():
    key_file, export, proof, checkpoints = sys.argv[1:]
    notes = Notes(key_file)
    hashes = check_export(export, notes)
    row = check_proof(proof, notes)
    sizes = check_checkpoints(checkpoints, notes, hashes)
    print(json.dumps({"events": len(hashes), "position": row["position"], "actor": row["actor"], "sizes": sizes}))


main()
