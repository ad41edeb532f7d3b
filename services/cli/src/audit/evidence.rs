//! `catrust audit verify-export`, `verify-proof` and `prove`: evidence in the auditor's hands.
//! Checking needs neither a server nor a database, only the public key.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use catrust_evidence::checkpoint::split_notes;
use catrust_evidence::tree::{inclusion_spans, span_root};
use catrust_evidence::{
    EventProof, EvidenceRow, ExportReport, ExportVerifier, Sha256, SignedCheckpoint, TrustKeys, VerifiedProof,
};
use catrust_proto::v1 as proto;
use clap::Args;
use proto::prove_event_request::Event;
use serde_json::json;

use crate::api_client::ApiClient;
use crate::failure::Failure;
use crate::output::{Printer, fields};
use crate::spelling::printable;

/// Public keys that are believed.
#[derive(Debug, Args)]
pub(crate) struct TrustKeyArguments {
    /// Public key (PEM) of the servers; several by giving it again.
    #[arg(long, value_name = "FILE", required = true)]
    trust_key: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyExportArguments {
    /// The export (JSON lines); - for standard input.
    #[arg(value_name = "FILE")]
    export: PathBuf,
    #[command(flatten)]
    keys: TrustKeyArguments,
    /// Checkpoints that were kept before: the export has to go on from each of them.
    #[arg(long, value_name = "FILE")]
    checkpoints: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyProofArguments {
    /// The proof (JSON); - for standard input.
    #[arg(value_name = "FILE")]
    proof: PathBuf,
    #[command(flatten)]
    keys: TrustKeyArguments,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("from").required(true).multiple(true).args(["instance", "export"]))]
pub(crate) struct ProveArguments {
    /// The event: its position, or its id (a UUID).
    event: String,
    /// Ask the server: instance that the event belongs to.
    #[arg(long, env = "CATRUST_INSTANCE")]
    instance: Option<String>,
    /// Ask nobody: take it from this export, which is checked on the way.
    #[arg(long, value_name = "FILE", requires = "trust_key")]
    export: Option<PathBuf>,
    /// Public key (PEM) of the servers, for --export; several by giving it again.
    #[arg(long, value_name = "FILE")]
    trust_key: Vec<PathBuf>,
}

impl ProveArguments {
    /// Whether no server is to be asked.
    pub(crate) fn is_offline(&self) -> bool {
        self.export.is_some()
    }
}

/// Checks an export from its first line to its last.
pub(crate) fn verify_export(arguments: &VerifyExportArguments, output: &Printer) -> Result<(), Failure> {
    let keys = load(&arguments.keys.trust_key)?;
    let earlier = match &arguments.checkpoints {
        Some(path) => read_checkpoints(path, &keys)?,
        None => Vec::new(),
    };
    let report = read_export(&arguments.export, &keys, &earlier, |_, _| {})?;
    let result = json!({
        "verified": true,
        "logId": report.log_id,
        "origin": report.checkpoint.origin,
        "events": report.checkpoint.size,
        "root": report.checkpoint.root,
        "headHash": report.head_hash,
        "earlierCheckpoints": report.earlier_checkpoints,
    });
    output.reply(&result, |_| export_text(&report))
}

fn export_text(report: &ExportReport) -> String {
    let head = fields(&[
        ("log", printable(&report.checkpoint.origin, false)),
        ("log id", report.log_id.to_string()),
        ("events", report.checkpoint.size.to_string()),
        ("root", report.checkpoint.root.to_string()),
        ("head hash", report.head_hash.to_string()),
        ("earlier checkpoints", report.earlier_checkpoints.to_string()),
    ]);
    format!("{head}\nverified: positions, hash chain, versions, revisions, digests, tree and signature agree")
}

pub(crate) fn verify_proof(arguments: &VerifyProofArguments, output: &Printer) -> Result<(), Failure> {
    let keys = load(&arguments.keys.trust_key)?;
    let text = read_text(&arguments.proof)?;
    let proof: EventProof = serde_json::from_str(&text)
        .map_err(|error| refused(&arguments.proof, &format!("not a proof: {error}")))?;
    let verified = proof.verify(&keys).map_err(|error| refused(&arguments.proof, &error.to_string()))?;
    let result = json!({
        "verified": true,
        "origin": verified.checkpoint.origin,
        "events": verified.checkpoint.size,
        "root": verified.checkpoint.root,
        "row": proof.row,
    });
    output.reply(&result, |_| proof_text(&verified))
}

fn proof_text(verified: &VerifiedProof) -> String {
    let event = &verified.event;
    let head = fields(&[
        ("position", event.position.to_string()),
        ("event type", event.event_type.clone()),
        ("event id", event.event_id.to_string()),
        ("instance", event.instance_id.to_string()),
        ("sn", event.sn.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("actor", event.actor.clone()),
        ("account", event.account_id.to_string()),
        ("policy version", event.policy_version.clone()),
        ("source address", event.source_address.clone()),
        ("request id", event.request_id.to_string()),
        ("occurred at", event.occurred_at.to_string()),
        ("payload", event.payload.clone()),
    ]);
    let (origin, size) = (printable(&verified.checkpoint.origin, false), verified.checkpoint.size);
    format!("{head}\nverified: this is event {} of the {size} in {origin}, as it was signed", event.position)
}

/// Gets a proof from the server and prints it, as JSON whatever the format.
pub(crate) async fn prove(arguments: &ProveArguments, api: &ApiClient) -> Result<(), Failure> {
    let event = match arguments.event.parse() {
        Ok(position) => Event::Position(position),
        Err(_) => Event::EventId(arguments.event.clone()),
    };
    let mqtt_instance_id = arguments.instance.clone().unwrap_or_default();
    let message = proto::ProveEventRequest { mqtt_instance_id, event: Some(event) };
    let mut client = api.audit();
    let reply = api.call(message, async |request| client.prove_event(request).await).await?;
    print_proof(&from_reply(reply)?)
}

/// Makes a proof from an export and prints it, as JSON whatever the format.
pub(crate) fn prove_from_export(arguments: &ProveArguments) -> Result<(), Failure> {
    let path = arguments.export.as_deref().unwrap_or(Path::new("-"));
    let keys = load(&arguments.trust_key)?;
    let (mut hashes, mut wanted, mut footer) = (Vec::new(), None, String::new());
    let position: Option<u64> = arguments.event.parse().ok();
    read_export(path, &keys, &[], |line, row| match row {
        Some(row) => {
            if position == Some(row.position) || row.event_id.to_string() == arguments.event {
                wanted = Some(row.clone());
            }
            hashes.push(row.hash);
        }
        None => line.clone_into(&mut footer),
    })?;
    let Some(row) = wanted else {
        return Err(refused(path, &format!("it has no event {}", arguments.event)));
    };
    let footer: catrust_evidence::ExportFooter =
        serde_json::from_str(&footer).map_err(|error| refused(path, &error.to_string()))?;
    let index = row.position - 1;
    let previous = usize::try_from(index).ok().and_then(|index| index.checked_sub(1));
    let previous = previous.and_then(|index| hashes.get(index)).copied().unwrap_or(Sha256::ZERO);
    let spans = inclusion_spans(index, hashes.len() as u64);
    let inclusion_path = spans.iter().map(|span| span_root(&hashes, *span)).collect();
    print_proof(&EventProof::new(row.into(), previous, inclusion_path, footer.checkpoint))
}

fn print_proof(proof: &EventProof) -> Result<(), Failure> {
    Printer::new(crate::arguments::OutputFormat::Json).reply(proof, |_| String::new())
}

/// The server's words as the file has them. Nothing is believed here: who reads the file checks.
fn from_reply(reply: proto::ProveEventResponse) -> Result<EventProof, Failure> {
    let unreadable = |what: &str| Failure::Evidence(format!("the server's proof has no readable {what}"));
    let row = reply.row.ok_or_else(|| unreadable("row"))?;
    let row = json!({
        "position": row.position,
        "event_id": row.event_id,
        "stream_id": row.stream_id,
        "stream_version": row.stream_version,
        "instance_id": row.mqtt_instance_id,
        "revision": row.revision,
        "bundle_digest": row.bundle_digest,
        "sn": row.sn,
        "event_type": row.event_type,
        "schema_version": row.schema_version,
        "payload": row.payload,
        "actor": row.actor,
        "account_id": row.account_id,
        "policy_version": row.policy_version,
        "source_address": row.source_address,
        "request_id": row.request_id,
        "traceparent": row.traceparent,
        "occurred_at": row.occurred_at,
        "hash": row.event_hash,
    });
    let row: EvidenceRow =
        serde_json::from_value(row).map_err(|error| unreadable(&format!("row: {error}")))?;
    let hash = |text: &String| text.parse().map_err(|_| unreadable("hash"));
    let path = reply.inclusion_path.iter().map(hash).collect::<Result<Vec<Sha256>, Failure>>()?;
    Ok(EventProof::new(row.into(), hash(&reply.previous_event_hash)?, path, reply.checkpoint))
}

/// Checks an export; hands out each line with its row, where it is one.
fn read_export(
    path: &Path,
    keys: &TrustKeys,
    earlier: &[SignedCheckpoint],
    mut each: impl FnMut(&str, Option<&EvidenceRow>),
) -> Result<ExportReport, Failure> {
    let mut reader: Box<dyn std::io::BufRead> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(|error| Failure::unreadable(path, &error))?))
    };
    let mut verifier = ExportVerifier::new(keys, earlier);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).map_err(|error| Failure::unreadable(path, &error))? == 0 {
            break;
        }
        let text = line.strip_suffix('\n').unwrap_or(&line);
        let row = verifier.line(text).map_err(|error| refused(path, &error.to_string()))?;
        each(text, row.as_ref());
    }
    verifier.finish().map_err(|error| refused(path, &error.to_string()))
}

fn read_checkpoints(path: &Path, keys: &TrustKeys) -> Result<Vec<SignedCheckpoint>, Failure> {
    let text = read_text(path)?;
    let (notes, torn) = split_notes(&text);
    if notes.is_empty() {
        let problem = if torn.is_empty() { "it is empty" } else { "it holds no checkpoint" };
        return Err(refused(path, problem));
    }
    let open =
        |note: &&str| SignedCheckpoint::open(note, keys).map_err(|error| refused(path, &error.to_string()));
    notes.iter().map(open).collect()
}

fn read_text(path: &Path) -> Result<String, Failure> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|error| Failure::unreadable(path, &error))
}

fn load(files: &[PathBuf]) -> Result<TrustKeys, Failure> {
    TrustKeys::load(files)
        .map_err(|error| Failure::Usage(format!("{error}; --trust-key takes public keys (PEM)")))
}

fn refused(path: &Path, problem: &str) -> Failure {
    Failure::Evidence(format!("NOT VERIFIED: {}: {}", path.display(), printable(problem, false)))
}
