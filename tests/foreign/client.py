"""Uses the contract from Python: reflection v1 and v1alpha, a CA made with openssl,
registered with proof of possession, turned off and on; errors taken apart.

Usage: client.py ADDRESS [TOKEN] [ACCOUNT]
"""

import pathlib
import subprocess
import sys
import tempfile
import uuid

import grpc
from contract import Contract, take
from google.rpc import error_details_pb2
from grpc_status import rpc_status

CA = "catrust.v1.CaCertificateService"
INSTANCES = "catrust.v1.InstanceService"
TRUST = "catrust.v1.TrustService"


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def certificates(directory, code):
    """A CA and a verification certificate for `code`, as a customer makes them."""
    at = lambda name: str(pathlib.Path(directory, name))
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/O=Customer/CN=A CA",
            "-keyout", at("ca.key"), "-out", at("ca.pem"))
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={code}",
            "-keyout", at("v.key"), "-out", at("v.csr"))
    openssl("x509", "-req", "-in", at("v.csr"), "-CA", at("ca.pem"), "-CAkey", at("ca.key"),
            "-set_serial", "1", "-days", "2", "-out", at("v.pem"))
    return pathlib.Path(at("ca.pem")).read_text(), pathlib.Path(at("v.pem")).read_text()


def refusal(call):
    """The status of a refused call, with its details unpacked."""
    try:
        call()
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        details = {}
        for packed in status.details:
            for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
                if packed.Is(kind.DESCRIPTOR):
                    message = kind()
                    packed.Unpack(message)
                    details[kind.DESCRIPTOR.name] = message
        headers = dict(error.initial_metadata() or []) | dict(error.trailing_metadata() or [])
        assert headers["x-request-id"] == details["ErrorInfo"].metadata["request_id"], headers
        return error.code(), details
    raise AssertionError("the call was not refused")


def load(address, token):
    contract = Contract(address, token, "v1")
    older = Contract(address, token, "v1alpha")
    services = contract.services()
    for wanted in (CA, INSTANCES, TRUST, "catrust.v1.FleetService", "grpc.health.v1.Health"):
        assert wanted in services, (wanted, services)
        contract.load(wanted)
        older.load(wanted)
    own = lambda names: [name for name in names if not name.startswith("grpc.reflection.")]
    assert own(services) == own(older.services()), "both versions name the same services"
    # grpcurl shows error details only where the older version defines them.
    older.load("google.rpc.ErrorInfo")
    return contract


def main(address, token=None, account="dev"):
    contract = load(address, token or None)
    health = contract.method("grpc.health.v1.Health", "Check")
    assert health().status == 1, "SERVING"

    instance = f"python-{uuid.uuid4().hex}"
    register_instance = contract.method(INSTANCES, "RegisterInstance")
    reply = register_instance(mqtt_instance_id=instance, region_id="eu-central-1", owner_account_id=account, edition=1)
    assert reply.changed and uuid.UUID(reply.request_id)

    code = contract.method(CA, "GetRegisterCode")(mqtt_instance_id=instance).register_code
    with tempfile.TemporaryDirectory() as directory:
        ca, verification = certificates(directory, code)
    registered = contract.method(CA, "RegisterCaCertificate")(
        mqtt_instance_id=instance, ca_name="from Python", ca_content=ca, verification_content=verification)
    sn = registered.sn

    watch = contract.method(TRUST, "WatchTrust")(mqtt_instance_id=instance, timeout=30)
    first = next(watch)
    assert first.WhichOneof("message") == "bundle" and first.bundle.revision == 1

    off = contract.method(CA, "InactivateCaCertificate")(
        mqtt_instance_id=instance, sn=sn.lower(), reason="leaked", request_id=str(uuid.uuid4()))
    assert off.changed and off.sn == sn and off.ca_certificate.state == 2
    change = next(m for m in watch if m.WhichOneof("message") == "change").change
    assert (change.revision, change.position) == (off.revision, off.position)
    watch.cancel()
    on = contract.method(CA, "ActivateCaCertificate")(mqtt_instance_id=instance, sn=sn)
    assert on.changed and on.ca_certificate.state == 1

    get = contract.method(CA, "GetCaCertificate")
    status, details = refusal(lambda: get(mqtt_instance_id=instance, sn="ABCD"))
    assert status == grpc.StatusCode.NOT_FOUND
    info = details["ErrorInfo"]
    assert (info.domain, info.reason, info.metadata["code"]) == ("catrust", "FIND_CA_BY_SN_ERROR", "FindCaBySnError")
    status, details = refusal(lambda: get(mqtt_instance_id=instance, sn="not hexadecimal"))
    assert status == grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in details["BadRequest"].field_violations] == ["sn"]

    events = contract.method(CA, "ListCaCertificateEvents")(mqtt_instance_id=instance).events
    assert [e.event_type for e in events] == [
        "CaCertificateRegistered", "CaCertificateInactivated", "CaCertificateActivated"]
    contract.method(CA, "DeleteCaCertificate")(mqtt_instance_id=instance, sn=sn)
    bundle = take(contract.method(TRUST, "WatchTrust")(mqtt_instance_id=instance), 1)[0].bundle
    assert bundle.revision == 4 and not bundle.entries, "an empty bundle: trust nothing"
    print("ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
