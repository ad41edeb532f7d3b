//! The settings as a whole: file, environment, messages, redaction, and the samples
//! under `deploy/config`.

use std::path::{Path, PathBuf};

use super::*;

fn load(file: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catrust.toml");
    std::fs::write(&path, file).unwrap();
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::load(Some(&path), env.into_iter())
}

#[track_caller]
fn message(file: &str, env: &[(&str, &str)]) -> String {
    load(file, env).unwrap_err().to_string()
}

const COMPLETE: &str = r#"
[database]
url = "postgres://app@localhost/catrust"
[signing]
key_file = "signing.pem"
[auth]
token_file = "identities.toml"
"#;

#[track_caller]
fn invalid(addition: &str, expected: &str) {
    let config = load(addition, &[]).unwrap();
    let error = config.validate().unwrap_err().to_string();
    assert!(error.lines().any(|line| line.contains(expected)), "{error}");
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Config::load(None, std::iter::empty()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.grpc.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:50052");
    assert_eq!(config.grpc.max_message_bytes, 262_144);
    assert_eq!(config.grpc.default_deadline_ms, 10_000);
    assert_eq!((config.rate_limit.per_user_per_second, config.rate_limit.burst), (500, 100));
    assert_eq!(config.rate_limit.max_users, 1_000_000);
    assert_eq!(config.limits.certificates_per_instance, 1_000);
    assert_eq!(config.limits.appender_queue, 4_096);
    assert_eq!(config.limits.reply_retention_days, 7);
    assert!(!config.limits.cut_with_will);
    assert_eq!((config.fleet.lost_after_seconds, config.fleet.forget_after_hours), (15, 24));
    assert_eq!(config.lifecycle.shutdown_grace_seconds, 20);
    assert_eq!(config.nats.url, None);
}

#[test]
fn an_empty_file_gives_the_defaults_and_serve_says_what_it_needs() {
    let config = load("", &[]).unwrap();
    assert_eq!(config, Config::default());
    let error = config.validate().unwrap_err().to_string();
    let keys: Vec<_> = error.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(keys, ["database.url", "signing.key_file", "auth.token_file"], "{error}");
    assert!(config.database.required_url().is_err());
}

#[test]
fn a_complete_file_is_valid() {
    load(COMPLETE, &[]).unwrap().validate().unwrap();
}

#[test]
fn an_unknown_key_or_section_is_refused_with_the_known_ones() {
    let error = message("[grpc]\nlisen = \"127.0.0.1:1\"", &[]);
    assert!(error.contains("grpc") && error.contains("\"lisen\"") && error.contains("listen"), "{error}");
    assert!(error.contains("catrust.toml"), "{error}");
    let error = message("[grcp]\nlisten = \"127.0.0.1:1\"", &[]);
    assert!(error.contains("\"grcp\"") && error.contains("grpc, admin"), "{error}");
    let error = message("", &[("CATRUST_GRPC__LISEN", "x")]);
    assert!(error.contains("\"lisen\"") && error.contains("CATRUST_GRPC__LISEN"), "{error}");
}

#[test]
fn the_environment_wins_over_the_file_in_the_type_of_each_setting() {
    let file =
        "[grpc]\nlisten = \"127.0.0.1:1\"\nmax_message_bytes = 5000\n[telemetry]\nlog_format = \"json\"";
    let env = [
        ("CATRUST_GRPC__LISTEN", "127.0.0.1:2"),
        ("CATRUST_LIMITS__CUT_WITH_WILL", "true"),
        ("CATRUST_TELEMETRY__SAMPLE_RATIO", "0.25"),
        ("CATRUST_TELEMETRY__LOG_FORMAT", "text"),
        ("CATRUST_DATABASE__PASSWORD", "0123"),
        ("CATRUST_NATS__URL", ""),
    ];
    let config = load(file, &env).unwrap();
    assert_eq!(config.grpc.listen.port(), 2);
    assert_eq!(config.grpc.max_message_bytes, 5_000, "a sibling key of the file stays");
    assert!(config.limits.cut_with_will);
    assert_eq!(config.telemetry.sample_ratio, 0.25);
    assert_eq!(config.telemetry.log_format, LogFormat::Text);
    assert_eq!(config.database.read_password().unwrap().unwrap().expose(), "0123");
    assert_eq!(config.nats.url, None, "an empty variable counts as not set");
}

#[test]
fn variables_that_are_no_settings_are_left_alone() {
    let env =
        [("CATRUST_TOKEN", "x"), ("CATRUST_SERVICE_HOST", "10.0.0.1"), ("PATH", "x"), ("GRPC__LISTEN", "x")];
    assert_eq!(load("", &env).unwrap(), Config::default());
}

#[test]
fn values_of_the_wrong_type_are_named_with_their_source() {
    let cases = [
        (
            ("CATRUST_GRPC__MAX_MESSAGE_BYTES", "lots"),
            "grpc.max_message_bytes: must be a whole number, is \"lots\"",
        ),
        (("CATRUST_GRPC__DEFAULT_DEADLINE_MS", "-1"), "must be a whole number"),
        (("CATRUST_LIMITS__CUT_WITH_WILL", "yes"), "must be true or false, is \"yes\""),
        (("CATRUST_TELEMETRY__SAMPLE_RATIO", "half"), "must be a number"),
        (("CATRUST_GRPC__LISTEN", "localhost"), "grpc.listen: must be an IP address and a port"),
        (("CATRUST_TELEMETRY__LOG_FORMAT", "xml"), "must be one of json, text, is \"xml\""),
        (("CATRUST_DATABASE__URL", "mysql://x"), "database.url: must start with postgres:// or sqlite:"),
    ];
    for ((name, value), expected) in cases {
        let error = message("", &[(name, value)]);
        assert!(error.contains(expected) && error.contains(name), "{error}");
    }
    let error = message("[grpc]\nmax_message_bytes = \"lots\"", &[]);
    assert!(
        error.starts_with("grpc.max_message_bytes: must be") && error.contains("catrust.toml"),
        "{error}"
    );
}

#[test]
fn several_wrong_variables_are_reported_together() {
    let error =
        message("", &[("CATRUST_GRPC__MAX_MESSAGE_BYTES", "x"), ("CATRUST_LIMITS__CUT_WITH_WILL", "x")]);
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn what_is_no_toml_is_named_by_line_without_quoting_it() {
    let error = message("[database]\npassword = hunter2\n", &[]);
    assert!(error.contains("catrust.toml:2:12"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Some(Path::new("no-such.toml")), std::iter::empty()).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }));
    assert_eq!(error.to_string(), "cannot read no-such.toml");
}

#[test]
fn secrets_appear_neither_in_debug_nor_in_the_printed_settings_nor_in_errors() {
    let file = r#"
[database]
url = "postgres://app:hunter2@db/catrust"
password = "hunter2"
[nats]
url = "nats://n:4222"
"#;
    let config = load(file, &[]).unwrap();
    let printed = config.to_toml().unwrap();
    for text in [format!("{config:?}"), printed.clone(), serde_json::to_string(&config).unwrap()] {
        assert!(!text.contains("hunter2") && text.contains(REDACTED), "{text}");
    }
    assert!(printed.contains("postgres://app:<redacted>@db/catrust"), "{printed}");
    let Some(DatabaseUrl::Postgres(url)) = &config.database.url else { panic!("not Postgres") };
    assert!(url.expose().contains("hunter2"));

    for value in ["postgres://u:hunter2@x@db/c", "hunter2"] {
        let error = message("", &[("CATRUST_DATABASE__URL", value)]);
        assert!(!error.contains("hunter2"), "{error}");
    }
    let error = message("[nats]\nurl = \"nats://u:hunter2@n:4222\"", &[]);
    assert!(error.contains("nats.url: must not hold credentials") && !error.contains("hunter2"), "{error}");
    let error = message("[database]\npassword = 90210", &[]);
    assert!(error.contains("database.password: must be a text") && !error.contains("90210"), "{error}");
}

#[test]
fn the_printed_settings_can_be_read_again() {
    let printed = Config::default().to_toml().unwrap();
    assert_eq!(load(&printed, &[]).unwrap(), Config::default());
}

#[test]
fn each_bound_is_enforced_and_says_why() {
    let cases = [
        ("[grpc]\nmax_message_bytes = 100", "grpc.max_message_bytes: is 100, must be 1024 to"),
        ("[grpc]\nmax_concurrent_streams = 0", "grpc.max_concurrent_streams: is 0"),
        ("[grpc]\nkeepalive_interval_seconds = 0", "grpc.keepalive_interval_seconds: is 0"),
        ("[grpc]\nkeepalive_timeout_seconds = 0", "grpc.keepalive_timeout_seconds: is 0"),
        ("[grpc]\ndefault_deadline_ms = 5", "grpc.default_deadline_ms: is 5"),
        ("[grpc]\nmax_concurrent_requests = 0", "grpc.max_concurrent_requests: is 0"),
        ("[admin]\nlisten = \"127.0.0.1:50051\"", "admin.listen: is the same as grpc.listen"),
        ("[database]\nread_connections = 0", "database.read_connections: is 0"),
        ("[database]\npassword = \"a\"\npassword_file = \"b\"", "database.password_file: is set beside"),
        ("[database]\nurl = \"sqlite:a.db\"\npassword = \"a\"", "SQLite takes no password"),
        ("[database]\nurl = \"sqlite:a.db\"\ndurability = \"synchronous\"", "SQLite has no standby"),
        ("[database]\nurl = \"postgres://h/d\"\npassword = \"a\"", "database.url: names no user"),
        ("[nats]\nurl = \"nats://n\"\nuser = \"u\"", "nats.user: user and password go together"),
        ("[nats]\nstream_replicas = 2", "nats.stream_replicas: must be 1, 3 or 5"),
        ("[nats]\nmax_kept_streams = 10", "nats.max_kept_streams: must be 1 to 9"),
        ("[nats]\nmax_kept_streams = 0", "nats.max_kept_streams: must be 1 to 9"),
        ("[nats]\nroot_ca_file = \"ca.pem\"", "nats.url: is not set although"),
        (
            "[nats]\nuser = \"u\"\npassword_file = \"p\"\ncredentials_file = \"c\"",
            "nats.credentials_file: there is more than one login",
        ),
        ("[nats]\nnkey_file = \"n\"\ncredentials_file = \"c\"", "there is more than one login"),
        ("[nats]\nclient_cert_file = \"c\"", "set both nats.client_cert_file and nats.client_key_file"),
        ("[nats]\nurl = \"tls://a, nats://b:4222\"", "nats.url: nats://b:4222 is on another machine"),
        ("[database]\nurl = \"postgres://u@db/c\"", "database.url: unsuitable"),
        ("[database]\nurl = \"postgres://u@db/c?sslmode=require\"", "database.root_ca_file"),
        ("[database]\nurl = \"postgres://u@127.0.0.1/c\"\nclient_key_file = \"k\"", "needs both its file"),
        ("[database]\nurl = \"sqlite:a.db\"\nroot_ca_file = \"a\"", "SQLite is reached by no network"),
        ("[rate_limit]\nper_user_per_second = 0", "0 would refuse every call"),
        ("[rate_limit]\nburst = 0", "rate_limit.burst: is 0"),
        ("[rate_limit]\nmax_users = 1", "rate_limit.max_users: is 1"),
        ("[rate_limit]\nreplicas = 0", "rate_limit.replicas: is 0"),
        ("[grpc]\nmax_streams_per_user = 0", "grpc.max_streams_per_user: is 0"),
        ("[limits]\ncertificates_per_instance = 0", "limits.certificates_per_instance: is 0"),
        ("[limits]\nappender_queue = 255", "limits.appender_queue: is 255"),
        ("[limits]\nreply_retention_days = 0", "limits.reply_retention_days: is 0"),
        ("[fleet]\nlost_after_seconds = 0", "fleet.lost_after_seconds: is 0"),
        ("[fleet]\nforget_after_hours = 0", "fleet.forget_after_hours: is 0"),
        ("[auth.jwt]\naudience = \"a\"", "auth.jwt.issuer: is required with any other key"),
        ("[auth.jwt]\nissuer = \"i\"", "auth.policy_dir: is required with auth.jwt.issuer"),
        ("[auth.jwt]\nissuer = \"i\"", "auth.jwt.audience: is required"),
        ("[auth.jwt]\nissuer = \"\"", "auth.jwt.issuer: must not be empty"),
        ("[auth.jwt]\nissuer = \"i\"", "set exactly one of auth.jwt.key_set_file and auth.jwt.key_set_url"),
        ("[auth.jwt]\nissuer = \"i\"\nkey_set_url = \"http://i/k\"", "auth.jwt.key_set_url: must be https"),
        ("[auth.jwt]\nissuer = \"i\"\nkey_set_ca_file = \"c\"", "auth.jwt.key_set_ca_file: is for"),
        ("[auth.jwt]\nissuer = \"i\"\nalgorithms = []", "auth.jwt.algorithms: is empty"),
        ("[auth.jwt]\nissuer = \"i\"\nuser_claim = \"\"", "auth.jwt.user_claim: must not be empty"),
        ("[auth.jwt]\nissuer = \"i\"\nclock_skew_seconds = 301", "auth.jwt.clock_skew_seconds: is 301"),
        ("[auth.jwt]\nissuer = \"i\"\nrefresh_seconds = 9", "auth.jwt.refresh_seconds: is 9"),
        ("[auth.jwt]\nissuer = \"i\"\nmax_age_seconds = 59", "auth.jwt.max_age_seconds: is 59"),
        ("[auth.jwt]\nissuer = \"i\"\nmax_age_seconds = 300", "must be more than auth.jwt.refresh_seconds"),
        ("[auth.jwt]\nissuer = \"i\"\nrequire_binding = true", "tls.client_ca_file: is required with"),
        ("[tls]\ncert_file = \"c\"", "set both tls.cert_file and tls.key_file"),
        ("[tls]\nclient_ca_file = \"c\"", "tls.client_ca_file: needs tls.cert_file"),
        (
            "[grpc]\nlisten = \"0.0.0.0:50051\"",
            "tls.cert_file: is required, because grpc.listen is not loopback",
        ),
        ("[telemetry]\notlp_endpoint = \"collector:4317\"", "telemetry.otlp_endpoint: must be http://"),
        ("[telemetry]\nlog_filter = \"a=b=c\"", "telemetry.log_filter: is no filter"),
        ("[telemetry]\nservice_name = \"\"", "telemetry.service_name: must not be empty"),
        ("[telemetry]\nsample_ratio = 1.5", "telemetry.sample_ratio: must be 0.0"),
        ("[lifecycle]\nshutdown_grace_seconds = 0", "lifecycle.shutdown_grace_seconds: is 0"),
        ("[lifecycle]\ndrain_delay_seconds = 301", "lifecycle.drain_delay_seconds: is 301"),
    ];
    for (file, expected) in cases {
        invalid(file, expected);
    }
}

#[test]
fn an_issuer_of_tokens_can_stand_in_for_the_identities_file() {
    let file = COMPLETE.replace("token_file = \"identities.toml\"", "policy_dir = \"policies\"");
    let env = [
        ("CATRUST_AUTH__JWT__ISSUER", "https://issuer.example.org"),
        ("CATRUST_AUTH__JWT__AUDIENCE", "catrust"),
        ("CATRUST_AUTH__JWT__KEY_SET_URL", "https://issuer.example.org/jwks.json"),
        ("CATRUST_AUTH__JWT__ALGORITHMS", "ES256, EdDSA"),
        ("CATRUST_AUTH__JWT__CLOCK_SKEW_SECONDS", "7"),
        ("CATRUST_AUTH__JWT__REQUIRE_BINDING", "false"),
    ];
    let config = load(&file, &env).unwrap();
    config.validate().unwrap();
    assert_eq!(config.auth.jwt.algorithms, [JwtAlgorithm::Es256, JwtAlgorithm::EdDsa]);
    assert_eq!(config.auth.jwt.clock_skew_seconds, 7);
    let error = message(&file, &[("CATRUST_AUTH__JWT__CLOCK_SKEW_SECONDS", "some")]);
    assert!(error.contains("auth.jwt.clock_skew_seconds: must be a whole number"), "{error}");
    let error = message(&file, &[("CATRUST_AUTH__JWT__ALGORITHMS", "ES256,none")]);
    assert!(error.contains("auth.jwt.algorithms") && error.contains("none"), "{error}");
    let error = message(&file, &[("CATRUST_AUTH__JWT__ALGORITHMS", "HS256")]);
    assert!(error.contains("must be one of ES256"), "{error}");
}

#[test]
fn a_key_set_file_is_looked_into() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    std::fs::write(&path, "{\"keys\": []}").unwrap();
    let jwt = JwtConfig { key_set_file: Some(path), ..JwtConfig::default() };
    let config = Config { auth: AuthConfig { jwt, ..AuthConfig::default() }, ..Config::default() };
    let error = config.check_files().unwrap_err().to_string();
    assert!(
        error.starts_with("auth.jwt.key_set_file: ") && error.contains("no key that can be used"),
        "{error}"
    );
}

#[test]
fn plaintext_beyond_loopback_needs_a_word() {
    let file = format!("{COMPLETE}\n[grpc]\nlisten = \"[::]:50051\"\n[tls]\nallow_plaintext = true");
    load(&file, &[]).unwrap().validate().unwrap();
}

#[test]
fn another_machine_needs_tls_or_a_word() {
    let file = COMPLETE.replace("@localhost/", "@db.internal/") + "[nats]\nurl = \"nats://n.internal\"";
    assert_eq!(load(&file, &[]).unwrap().validate().unwrap_err().to_string().lines().count(), 2);
    let by_tls = [("CATRUST_DATABASE__ROOT_CA_FILE", "ca.pem"), ("CATRUST_NATS__ROOT_CA_FILE", "ca.pem")];
    let by_word = [("CATRUST_DATABASE__ALLOW_PLAINTEXT", "true"), ("CATRUST_NATS__ALLOW_PLAINTEXT", "true")];
    for words in [by_tls, by_word] {
        load(&file, &words).unwrap().validate().unwrap();
    }
}

#[test]
fn files_that_cannot_be_read_are_all_named() {
    let config = load(COMPLETE, &[("CATRUST_TLS__KEY_FILE", "no-such-key.pem")]).unwrap();
    let error = config.check_files().unwrap_err().to_string();
    let keys: Vec<_> = error.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(keys, ["signing.key_file", "tls.key_file", "auth.token_file"], "{error}");
}

#[test]
fn a_key_set_and_its_root_key_go_together_and_a_warning_comes_in_time() {
    let problems = |environment: &[(&str, &str)]| {
        let validated = load(COMPLETE, environment).unwrap().validate();
        validated.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let (set, root) =
        (("CATRUST_SIGNING__KEY_SET_FILE", "keys.json"), ("CATRUST_SIGNING__ROOT_KEY_FILE", "root.pub.pem"));
    assert_eq!(problems(&[set, root]), "");
    for alone in [set, root] {
        assert!(problems(&[alone]).starts_with("signing.root_key_file: goes with"), "{}", problems(&[alone]));
    }
    let never = problems(&[("CATRUST_SIGNING__EXPIRY_WARNING_DAYS", "0")]);
    assert!(never.starts_with("signing.expiry_warning_days: is 0, must be 1 to 365"), "{never}");
}

#[test]
fn a_certificate_and_a_key_that_do_not_fit_together_are_told_before_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (key, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
    std::fs::write(at("server.pem"), &certificate).unwrap();
    let check = |key: &str, clients: &str| {
        std::fs::write(at("server.key"), key).unwrap();
        std::fs::write(at("clients.pem"), clients).unwrap();
        let tls = TlsConfig {
            cert_file: Some(at("server.pem")),
            key_file: Some(at("server.key")),
            client_ca_file: Some(at("clients.pem")),
            ..TlsConfig::default()
        };
        Config { tls, ..Config::default() }.check_files().map_err(|error| error.to_string())
    };
    assert_eq!(check(&key.serialize_pem(), &certificate), Ok(()));
    for (key, clients, expected) in [
        (other.serialize_pem(), &*certificate, "cannot be used together"),
        (String::new(), &*certificate, "tls.key_file holds no private key"),
        (key.serialize_pem(), "", "tls.client_ca_file cannot be used: it holds no certificate"),
    ] {
        let error = check(&key, clients).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_schema_knows_every_section_and_refuses_unknown_keys() {
    let schema = serde_json::to_value(Config::schema()).unwrap();
    let sections = schema["properties"].as_object().unwrap();
    assert_eq!(sections.len(), 13);
    assert_eq!(schema["additionalProperties"], false);
    assert!(serde_json::to_string(&schema).unwrap().contains("Requests per second of one user"));
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/config")
}

#[test]
fn every_sample_configuration_is_valid() {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(samples()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("identities") {
            let beside_policies = name.contains("policies");
            let source =
                if beside_policies { PermissionSource::Policies } else { PermissionSource::Identities };
            assert!(!Identities::load(&path, source).unwrap().is_empty(), "{name}");
        } else {
            let config =
                Config::load(Some(&path), std::iter::empty()).unwrap_or_else(|e| panic!("{name}: {e}"));
            config.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        seen.push(name);
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            "dev.toml",
            "identities.beside-policies.example.toml",
            "identities.example.toml",
            "production.toml",
            "sqlite.toml"
        ]
    );
}

#[test]
fn the_sample_policies_are_valid() {
    let policy_dir = samples().join("../policies");
    let auth = AuthConfig { policy_dir: Some(policy_dir), ..AuthConfig::default() };
    Config { auth, ..Config::default() }.check_files().unwrap();
}

#[test]
fn every_problem_of_the_policies_is_named_with_its_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("1")).unwrap();
    std::fs::write(folder.path().join("1/a.cedar"), "\npermit(principal, action, resource").unwrap();
    std::fs::write(folder.path().join("1/b.json"), "{}").unwrap();
    let check = |path: &Path| {
        let auth = AuthConfig { policy_dir: Some(path.to_owned()), ..AuthConfig::default() };
        Config { auth, ..Config::default() }.check_files().unwrap_err().to_string()
    };
    let error = check(folder.path());
    let lines: Vec<_> = error.lines().collect();
    let place = |name: &str| folder.path().join(name).display().to_string();
    assert!(lines.len() == 2 && lines[0].starts_with(&place("1/a.cedar:2: ")), "{error}");
    assert!(lines[1].starts_with(&place("1/b.json:1: ")), "{error}");
    let error = check(&folder.path().join("gone"));
    assert!(error.starts_with("auth.policy_dir: ") && error.contains("cannot be listed"), "{error}");
}

fn deployment_file(name: &str) -> String {
    std::fs::read_to_string(samples().join("..").join(name)).unwrap()
}

#[test]
fn the_settings_in_the_compose_file_are_valid() {
    let compose = deployment_file("compose.yaml");
    let (_, settings) = compose.split_once("environment: &settings\n").unwrap();
    let variables = settings.lines().map_while(|line| line.trim().split_once(": \""));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()));
    let variables: Vec<_> = variables.collect();
    assert!(variables.len() >= 10, "{variables:?}");
    Config::load(None, variables.into_iter()).unwrap().validate().unwrap();
}

#[test]
fn the_settings_in_the_kubernetes_manifest_are_valid() {
    let manifest = deployment_file("kubernetes/catrust.yaml");
    let (_, settings) = manifest.split_once("  catrust.toml: |\n").unwrap();
    let (settings, _) = settings.split_once("\n---\n").unwrap();
    let config = load(settings, &[]).unwrap();
    config.validate().unwrap();
    let grace = config.lifecycle.drain_delay_seconds + config.lifecycle.shutdown_grace_seconds;
    let (_, seconds) = manifest.split_once("terminationGracePeriodSeconds: ").unwrap();
    let seconds: u64 = seconds.lines().next().unwrap().parse().unwrap();
    assert!(
        seconds > grace,
        "the pod would be killed after {seconds} s, in the middle of {grace} s of grace"
    );
}
