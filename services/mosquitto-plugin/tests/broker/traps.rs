//! Configurations that would defeat the plugin: the broker does not start with them,
//! and says what to change.

use crate::mosquitto::{Broker, Settings};

async fn refused(settings: Settings, expected: &[&str]) {
    let log = Broker::start_refused(&settings).await;
    for text in expected {
        assert!(log.contains(text), "{text:?} is missing:\n{log}");
    }
    assert!(log.contains("catrust: the plugin does not start"), "{log}");
}

#[tokio::test]
async fn identity_as_user_name_is_refused_at_start() {
    for key in ["use_identity_as_username", "use_subject_as_username"] {
        let settings = Settings { listener: format!("{key} true"), ..Settings::default() };
        refused(settings, &[key, "would not ask the plugin at CONNECT", "remove the line"]).await;
    }
}

#[tokio::test]
async fn per_listener_settings_are_refused_at_start() {
    let settings = Settings { global: "per_listener_settings true".to_owned(), ..Settings::default() };
    refused(settings, &["mosquitto.conf:1: per_listener_settings true", "write per_listener_settings false"])
        .await;
}

#[tokio::test]
async fn settings_under_which_a_reload_hits_bystanders_are_refused_at_start() {
    let settings = Settings { options: "plugin_opt_username keep".to_owned(), ..Settings::default() };
    refused(settings, &["SIGHUP would cut every device", "write plugin_opt_username common-name"]).await;
}

#[tokio::test]
async fn missing_access_rules_are_refused_at_start() {
    let settings = Settings { acl: Some(String::new()), no_acl_file: true, ..Settings::default() };
    refused(settings, &["there is no acl_file", "topic readwrite $CONTROL/ca-trust/v1/#"]).await;
}

#[tokio::test]
async fn a_password_file_that_would_no_longer_be_read_is_refused_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    std::fs::write(&file, "").unwrap();
    let settings = Settings { global: format!("password_file {}", file.display()), ..Settings::default() };
    refused(settings, &["passwords of devices would not be checked any more"]).await;
}

#[tokio::test]
async fn misspelt_options_are_refused_at_start() {
    let settings = Settings { options: "plugin_opt_resumptoin off".to_owned(), ..Settings::default() };
    refused(settings, &["plugin_opt_resumptoin off: is not an option of this plugin"]).await;
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_is_said_so() {
    let settings = Settings { options: "plugin_opt_config nowhere.conf".to_owned(), ..Settings::default() };
    let broker = Broker::start(&settings).await;
    assert!(broker.log().contains("nowhere.conf cannot be read"), "{}", broker.log());
}

/// Why the trap is one: with it the broker does not ask, and a device of an inactive CA
/// stays, and comes back with its ticket. `config` points the check elsewhere.
#[tokio::test]
async fn with_identity_as_user_name_the_plugin_would_be_blind() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = directory.path().join("other.conf");
    std::fs::write(&elsewhere, "acl_file x\n").unwrap();
    let settings = Settings {
        listener: "use_identity_as_username true".to_owned(),
        options: format!("plugin_opt_resumption on\nplugin_opt_config {}", elsewhere.display()),
        ..Settings::default()
    };
    let mut stage = crate::stage::Stage::with(settings).await;
    let device = stage.device_a("a1");
    let mut session = device.connect(&stage.broker).await;
    assert_eq!(stage.inactivate_a().await.kicked, 0);
    session.assert_alive().await;
    assert!(device.connect(&stage.broker).await.is_resumed());
}
