//! The command line as a whole; each noun has its own arguments in its own file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Turns trust in CA certificates off and on across a fleet of MQTT brokers.
///
/// Exit codes: 0 done, 1 refused (the code on stderr), 2 usage, 3 unreachable.
#[derive(Debug, Parser)]
#[command(name = "catrust", version, max_term_width = 100)]
pub(crate) struct CommandLine {
    /// How to reach the server.
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    /// Tables for people, or ProtoJSON of the reply.
    #[arg(short = 'o', long = "output", global = true, value_enum, default_value_t = OutputFormat::Table)]
    pub(crate) output: OutputFormat,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Noun,
}

/// How to reach the server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArguments {
    /// Server, http://HOST:PORT or https://HOST:PORT.
    #[arg(
        long,
        global = true,
        env = "CATRUST_SERVER",
        default_value = "http://127.0.0.1:50051",
        value_name = "URL"
    )]
    pub(crate) server: String,
    /// File with the bearer token; the environment's CATRUST_TOKEN otherwise.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// CAs to check the server's certificate against (PEM); required with https.
    #[arg(long, global = true, env = "CATRUST_TLS_CA_FILE", value_name = "FILE")]
    pub(crate) tls_ca_file: Option<PathBuf>,
    /// Client certificate with its intermediates (PEM), in place of a token.
    #[arg(
        long,
        global = true,
        env = "CATRUST_TLS_CERT_FILE",
        value_name = "FILE",
        requires = "tls_key_file"
    )]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// Key of the client certificate (PEM).
    #[arg(
        long,
        global = true,
        env = "CATRUST_TLS_KEY_FILE",
        value_name = "FILE",
        requires = "tls_cert_file"
    )]
    pub(crate) tls_key_file: Option<PathBuf>,
    /// Seconds for one call with all its retries, 1 to 600.
    #[arg(long, global = true, default_value_t = 15, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) timeout: u64,
}

/// How replies are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Aligned columns, for people.
    Table,
    /// ProtoJSON, for scripts; one object a line from `watch`.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// MQTT instances: register, update, list, show.
    #[command(subcommand)]
    Instance(crate::instance::InstanceCommand),
    /// CA certificates: code, register, list, show, inactivate, activate, delete, history.
    #[command(subcommand)]
    Ca(crate::ca::CaCommand),
    /// Follow the trust of an instance as brokers do. Signatures are not checked.
    Watch(crate::watch::WatchArguments),
    /// Read the trust bundle of an instance: now, at a revision or as of a time.
    Bundle(crate::bundle::BundleArguments),
    /// Brokers: status, propagation.
    #[command(subcommand)]
    Fleet(crate::fleet::FleetCommand),
    /// The audit trail: list, refusals, prove, verify-proof, verify-export.
    #[command(subcommand)]
    Audit(crate::audit::AuditCommand),
    /// Policy folders: check, test. Offline: no server is asked.
    #[command(subcommand)]
    Policy(crate::policy::PolicyCommand),
    /// Signing keys: generate, vouch, show, verify. Offline: no server is asked.
    #[command(subcommand)]
    Keys(crate::keys::KeysCommand),
    /// Make a login to NATS: the seed of an nkey into FILE, its public key on the screen. Offline.
    NatsKey(crate::nats_key::NatsKeyArguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn options_may_follow_the_noun_and_the_defaults_are_those_of_the_contract() {
        let parsed = CommandLine::try_parse_from(["catrust", "instance", "list", "-o", "json"]).unwrap();
        assert_eq!(parsed.output, OutputFormat::Json);
        assert_eq!(parsed.connection.timeout, 15);
        assert!(matches!(parsed.command, Noun::Instance(_)));
    }

    #[test]
    fn what_is_not_understood_is_a_usage_error() {
        for wrong in
            [&["catrust"][..], &["catrust", "ca", "revoke"], &["catrust", "-o", "xml", "instance", "list"]]
        {
            assert_eq!(CommandLine::try_parse_from(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
