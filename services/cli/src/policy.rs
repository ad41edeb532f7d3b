//! `catrust policy`: a folder of policies, looked at as a server would. Offline.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use catrust_policy::{AccessRequest, Action, Decision, Policies, PolicyBundle, PolicyProblems, Resource};
use catrust_proto::Timestamp;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Printer, fields, table};
use crate::spelling;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check every file of a policy folder, as a server does before it takes it.
    Check(CheckArguments),
    /// Tell whether somebody may do something, and which policies say so. Exits with 0
    /// where it is allowed and with 1 where it is refused.
    Test(TestArguments),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// Policy folder: DIR/ACCOUNT/NAME.cedar and DIR/ACCOUNT/NAME.json.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    /// Policy folder: DIR/ACCOUNT/NAME.cedar and DIR/ACCOUNT/NAME.json.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Account of the principal; its policies decide.
    #[arg(long)]
    account: String,
    /// Name of the principal.
    #[arg(long)]
    principal: String,
    /// Action, for example mq:UnregisterCaCertificate. The one that it depends on is asked for too.
    #[arg(long, value_parser = parse_action)]
    action: Action,
    /// Instance, acs:mq:REGION:ACCOUNT:INSTANCE; acs:mq:*:*:* for a call about all instances.
    #[arg(long, value_parser = parse_resource)]
    resource: String,
    /// Address that the call comes from; unknown by default, which no condition on it allows.
    #[arg(long, value_name = "IP")]
    source_ip: Option<IpAddr>,
    /// When the call is made (RFC 3339); now by default.
    #[arg(long, value_name = "TIME", value_parser = spelling::parse_time)]
    at: Option<Timestamp>,
    /// The principal is an operator of catrust.
    #[arg(long)]
    operator: bool,
}

pub(crate) fn run(command: PolicyCommand, output: &Printer) -> Result<(), Failure> {
    match command {
        PolicyCommand::Check(command) => check(&command, output),
        PolicyCommand::Test(command) => test(&command, output),
    }
}

fn compiled(folder: &Path) -> Result<Policies, PolicyProblems> {
    Policies::compile(&PolicyBundle::read(folder)?)
}

#[derive(Serialize)]
struct CheckReport {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    accounts: Vec<AccountReport>,
    problems: Vec<FileProblem>,
}

#[derive(Serialize)]
struct AccountReport {
    account: String,
    policies: usize,
}

#[derive(Serialize)]
struct FileProblem {
    file: String,
    line: usize,
    message: String,
}

fn check(command: &CheckArguments, output: &Printer) -> Result<(), Failure> {
    let compiled = compiled(&command.dir);
    let mut report =
        CheckReport { valid: compiled.is_ok(), version: None, accounts: Vec::new(), problems: Vec::new() };
    match &compiled {
        Ok(policies) => {
            report.version = Some(policies.version().to_owned());
            let accounts = policies.accounts().into_iter();
            report.accounts = accounts
                .map(|(account, policies)| AccountReport { account: account.to_owned(), policies })
                .collect();
        }
        Err(refused) => {
            let problems = refused.0.iter().cloned();
            report.problems = problems
                .map(|found| FileProblem { file: found.path, line: found.line, message: found.message })
                .collect();
        }
    }
    output.reply(&report, check_text)?;
    compiled.map(drop).map_err(|refused| unusable(&command.dir, &refused))
}

fn check_text(report: &CheckReport) -> String {
    let Some(version) = &report.version else { return String::new() };
    let rows: Vec<_> = report
        .accounts
        .iter()
        .map(|account| vec![account.account.clone(), account.policies.to_string()])
        .collect();
    format!("{}\n{}", fields(&[("version", version.clone())]), table(&["ACCOUNT", "POLICIES"], &rows))
}

fn unusable(folder: &Path, refused: &PolicyProblems) -> Failure {
    let problems: Vec<String> =
        refused.0.iter().map(|problem| spelling::printable(&problem.to_string(), false)).collect();
    Failure::Policy(format!("the policies in {} cannot be used:\n{}", folder.display(), problems.join("\n")))
}

#[derive(Serialize)]
struct TestReport {
    allowed: bool,
    version: String,
    account: String,
    principal: String,
    resource: String,
    /// The asked-for action first, then the one that it depends on.
    decisions: Vec<ActionReport>,
}

#[derive(Serialize)]
struct ActionReport {
    action: &'static str,
    allowed: bool,
    /// `ACCOUNT/FILE:LINE` of those that decided.
    policies: Vec<String>,
    reason: String,
}

fn test(command: &TestArguments, output: &Printer) -> Result<(), Failure> {
    // A folder that cannot be used is no answer, and must not look like a refusal.
    let policies = compiled(&command.dir)
        .map_err(|refused| Failure::Usage(unusable(&command.dir, &refused).to_string()))?;
    let time_ms = command.at.as_ref().map_or_else(now_ms, milliseconds);
    let resource = Resource::parse(&command.resource);
    let resource = resource.ok_or_else(|| Failure::Usage(format!("{}: {RESOURCE}", command.resource)))?;
    let decide = |action: Action| {
        let decision = policies.decide_anew(&AccessRequest {
            principal: &command.principal,
            account_id: &command.account,
            operator: command.operator,
            action,
            resource,
            source_ip: command.source_ip,
            time_ms,
        });
        let reason = decision.to_string();
        let Decision { allowed, policies, .. } = decision;
        ActionReport { action: action.name(), allowed, policies, reason }
    };
    let decisions: Vec<_> = command.action.with_dependent().map(decide).collect();
    let report = TestReport {
        allowed: decisions.iter().all(|decision| decision.allowed),
        version: policies.version().to_owned(),
        account: command.account.clone(),
        principal: command.principal.clone(),
        resource: command.resource.clone(),
        decisions,
    };
    output.reply(&report, |report| test_text(report, resource))?;
    if report.allowed {
        return Ok(());
    }
    let (principal, action) = (spelling::printable(&command.principal, false), command.action.name());
    Err(Failure::Policy(format!("{principal} may not {action} on {}", command.resource)))
}

fn test_text(report: &TestReport, resource: Resource<'_>) -> String {
    let row = |decision: &ActionReport| {
        let verdict = if decision.allowed { "ALLOWED" } else { "REFUSED" };
        vec![decision.action.to_owned(), verdict.to_owned(), decision.reason.clone()]
    };
    let rows: Vec<_> = report.decisions.iter().map(row).collect();
    let owner = if resource.account_id == report.account { "" } else { OTHER_OWNER };
    format!("{}{owner}", table(&["ACTION", "DECISION", "WHY"], &rows))
}

const OTHER_OWNER: &str = "\nThe instance belongs to another account: beyond InstanceService, and that for operators \
                           only, the owner check of the server refuses it all the same.\n";

const RESOURCE: &str = "write acs:mq:REGION:ACCOUNT:INSTANCE";

fn parse_resource(text: &str) -> Result<String, String> {
    Resource::parse(text).map(|resource| resource.to_string()).ok_or_else(|| RESOURCE.to_owned())
}

fn parse_action(text: &str) -> Result<Action, String> {
    Action::find(text).ok_or_else(|| {
        let names: Vec<_> = Action::ALL.into_iter().map(Action::name).collect();
        format!("there are {}", names.join(", "))
    })
}

fn milliseconds(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos) / 1_000_000)
}

fn now_ms() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}
