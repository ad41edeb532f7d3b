use std::path::Path;
use std::time::Duration;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: MosquittoSettings,
}

fn parse(arguments: &[&str]) -> Result<MosquittoSettings, clap::Error> {
    let words = [&["agent", "--control-socket", "admin.sock"], arguments].concat();
    Line::try_parse_from(words).map(|line| line.settings)
}

#[test]
fn the_defaults_are_those_of_the_plugin_and_of_the_agent() {
    let settings = parse(&[]).unwrap();
    assert_eq!(settings.agent_user, "catrust-agent");
    assert_eq!((settings.lease, settings.answer_timeout), (Duration::from_secs(600), Duration::from_secs(5)));
    assert_eq!((settings.check, settings.mosquitto_config), (false, None));
    assert_eq!(parse(&["--lease", "0.5"]).unwrap().lease, Duration::from_millis(500));
    for lease in ["0", "-1", "x", "86401"] {
        assert!(parse(&["--lease", lease]).is_err(), "{lease}");
    }
}

const GOOD: &str = "acl_file acl\nplugin libcatrust_mosquitto.so\nlistener 8883\ncertfile c\n\
                    require_certificate true\nlistener 0 admin.sock\n";

fn check(directory: &Path, text: &str) -> anyhow::Result<()> {
    let file = directory.join("mosquitto.conf");
    std::fs::write(&file, text).unwrap();
    let settings = parse(&["--mosquitto-config", file.to_str().unwrap()]).unwrap();
    check_configuration(&settings)
}

#[test]
fn a_configuration_that_would_defeat_the_plugin_is_refused_with_what_to_write() {
    let directory = tempfile::tempdir().unwrap();
    check(directory.path(), GOOD).unwrap();
    for (text, expected) in [
        (format!("use_identity_as_username true\n{GOOD}"), "remove the line"),
        (format!("per_listener_settings true\n{GOOD}"), "write per_listener_settings false"),
        (GOOD.replace("plugin libcatrust_mosquitto.so\n", ""), "no line loads the plugin"),
        (GOOD.replace("listener 0 admin.sock\n", ""), "write `listener 0 admin.sock`"),
        (format!("plugin_opt_agent_user boss\n{GOOD}"), "give --agent-user boss"),
    ] {
        let error = check(directory.path(), &text).unwrap_err().to_string();
        assert!(error.contains("has to be changed:\n") && error.contains(expected), "{error}");
    }
}

#[test]
fn without_a_configuration_there_is_nothing_to_check() {
    assert!(check_configuration(&parse(&[]).unwrap()).is_ok());
    assert!(check_configuration(&parse(&["--check"]).unwrap()).is_err());
    let missing = parse(&["--mosquitto-config", "nowhere.conf"]).unwrap();
    let error = format!("{:#}", check_configuration(&missing).unwrap_err());
    assert!(error.contains("nowhere.conf cannot be read"), "{error}");
}
