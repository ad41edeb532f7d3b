//! Below the messages: bytes that are none, methods that are none, deadlines.

use anyhow::Context as _;
use bytes::{Buf as _, BufMut as _, Bytes};
use catrust_proto::v1::{GetInstanceRequest, RegisterCaCertificateRequest};
use catrust_tests::client::{Caller, Refusal, refused};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Response, Status};

use crate::site::{Site, on_both_sites};

on_both_sites!(
    bytes_that_are_no_message_are_refused_with_details,
    an_unknown_method_is_refused_with_details,
    a_message_over_the_limit_is_refused_with_details,
    a_deadline_in_the_future_is_no_obstacle,
    a_malformed_deadline_is_no_deadline,
    every_reply_names_the_request,
);

/// Sends and takes bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

async fn call(
    caller: &Caller,
    path: &'static str,
    request: Request<Bytes>,
) -> anyhow::Result<Result<Response<Bytes>, Status>> {
    let mut grpc = tonic::client::Grpc::new(caller.channel.clone());
    grpc.ready().await?;
    Ok(grpc.unary(request, http::uri::PathAndQuery::from_static(path), Raw).await)
}

/// The sites know their owner by a token; these calls build their own metadata.
fn with_token(site: &Site, bytes: &'static [u8]) -> anyhow::Result<Request<Bytes>> {
    let mut request = Request::new(Bytes::from_static(bytes));
    if matches!(site, Site::Production { .. }) {
        let token = format!("Bearer {}", catrust_tests::deployment::OPERATOR);
        request.metadata_mut().insert("authorization", token.parse()?);
    }
    Ok(request)
}

const GET_INSTANCE: &str = "/catrust.v1.InstanceService/GetInstance";

async fn bytes_that_are_no_message_are_refused_with_details(site: &Site) -> anyhow::Result<()> {
    let caller = site.operator()?;
    let hostile: [&'static [u8]; 6] = [
        &[0xff; 64],
        // A length that reaches far beyond the end.
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
        // A string that is not UTF-8.
        &[0x0a, 0x02, 0xc3, 0x28],
        // Wire type 3, a group that never ends.
        &[0x0b],
        // Field number 0.
        &[0x02, 0x01, 0x61],
        // A number where a string belongs.
        &[0x08, 0x01],
    ];
    for bytes in hostile {
        let reply = call(&caller, GET_INSTANCE, with_token(site, bytes)?).await?;
        refused(reply, Code::InvalidArgument, "ParameterFieldCheckFailed")
            .with_context(|| format!("{bytes:x?}"))?;
    }
    Ok(())
}

async fn an_unknown_method_is_refused_with_details(site: &Site) -> anyhow::Result<()> {
    let caller = site.operator()?;
    for path in ["/catrust.v1.InstanceService/Nothing", "/catrust.v1.Nothing/Get", "/x", "/catrust.v9.A/B"] {
        let reply = call(&caller, path, with_token(site, b"")?).await?;
        refused(reply, Code::Unimplemented, "Unimplemented").with_context(|| path.to_owned())?;
    }
    Ok(())
}

async fn a_message_over_the_limit_is_refused_with_details(site: &Site) -> anyhow::Result<()> {
    let request = RegisterCaCertificateRequest {
        mqtt_instance_id: "x".to_owned(),
        ca_content: "A".repeat(8 << 20),
        ..Default::default()
    };
    let reply = site.owner()?.ca.register_ca_certificate(request).await;
    refused(reply, Code::InvalidArgument, "ParameterFieldCheckFailed")?;
    Ok(())
}

async fn a_deadline_in_the_future_is_no_obstacle(site: &Site) -> anyhow::Result<()> {
    let caller = site.operator()?;
    for text in ["20S", "1H", "99999999H", "20000m", "20000000u", "99999999n"] {
        let mut request = with_token(site, b"\x0a\x01x")?;
        request.metadata_mut().insert("grpc-timeout", text.parse()?);
        let reply = call(&caller, GET_INSTANCE, request).await?;
        refused(reply, Code::NotFound, "MqttInstanceNotFound").with_context(|| text.to_owned())?;
    }
    Ok(())
}

async fn a_malformed_deadline_is_no_deadline(site: &Site) -> anyhow::Result<()> {
    let caller = site.operator()?;
    for text in ["banana", "", "-1S", "1", "S", "999999999999S", "1x", "1 S"] {
        let mut request = with_token(site, b"\x0a\x01x")?;
        request.metadata_mut().insert("grpc-timeout", text.parse()?);
        let reply = call(&caller, GET_INSTANCE, request).await?;
        refused(reply, Code::NotFound, "MqttInstanceNotFound").with_context(|| format!("{text:?}"))?;
    }
    Ok(())
}

async fn every_reply_names_the_request(site: &Site) -> anyhow::Result<()> {
    let id = "0b0e7f4e-63f4-4c4b-8d0a-30b1b5a5f6d1";
    let caller = site.operator()?;
    for (path, bytes) in [
        (GET_INSTANCE, &b"\x0a\x01x"[..]),
        (GET_INSTANCE, &[0xff; 8]),
        ("/catrust.v1.InstanceService/Nothing", b""),
        ("/nothing.at/All", b""),
        ("/catrust.v1.FleetService/ListBrokers", b"\x0a\x01x"),
    ] {
        let mut request = Request::new(Bytes::copy_from_slice(bytes));
        *request.metadata_mut() = with_token(site, b"")?.metadata().clone();
        request.metadata_mut().insert("x-request-id", id.parse()?);
        let status = call(&caller, path, request).await?.err().context("a refusal")?;
        assert_eq!(Refusal::of(&status)?.request_id, id, "{path}");
    }
    let instance = site.instance().await?;
    let mut request = Request::new(GetInstanceRequest { mqtt_instance_id: instance.id });
    request.metadata_mut().insert("x-request-id", id.parse()?);
    let reply = site.operator()?.instances.get_instance(request).await?;
    assert_eq!(reply.metadata().get("x-request-id").context("no header")?, id);
    assert_eq!(reply.into_inner().request_id, id);
    Ok(())
}
