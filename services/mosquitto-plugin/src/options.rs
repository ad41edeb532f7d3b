//! The plugin's options: `plugin_opt_…` in the broker's configuration.

use catrust_domain::InstanceId;
use catrust_mosquitto_control::DEFAULT_AGENT_USER;

/// Where the user name of a device comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserName {
    /// The common name of its certificate, or `sha256-` and its digest where that is
    /// missing or ambiguous.
    CommonName,
    /// Whatever it says at CONNECT.
    Keep,
}

/// What happens to clients without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificateless {
    /// They are refused, but on unix sockets.
    Deny,
    /// The broker's other ways to authenticate decide.
    Defer,
}

/// What the broker's password file has to say about devices with an accepted certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passwords {
    /// Nothing: the certificate is enough.
    Ignore,
    /// They need a user name and password as well.
    Check,
}

/// The options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `agent_user NAME`: user name of the agent. Default `catrust-agent`.
    pub agent_user: String,
    /// `control_socket PATH`: the only unix listener, as its `listener 0 PATH` spells it,
    /// that the agent is taken from. Default: any. Whoever can open that socket can be
    /// the agent: the directory's permissions are the wall.
    pub control_socket: Option<String>,
    /// `instance ID`: the only instance whose bundles are taken. Default: that of the
    /// first bundle.
    pub instance_id: Option<InstanceId>,
    /// `username common-name|keep`. Default `common-name`.
    pub user_name: UserName,
    /// `certificateless deny|defer`. Default `deny`.
    pub certificateless: Certificateless,
    /// `passwords ignore|check`. Default `ignore`. `check` wants `username keep`: the
    /// broker checks the password of the name that the device gives.
    pub passwords: Passwords,
    /// `resumption off|on`: whether TLS sessions can be resumed. Default off: a ticket
    /// is a bearer credential that skips the handshake's check, so that a refused device
    /// would cost a CONNECT each time, and one veto would be all that stands between it
    /// and a session. Turn it on where full handshakes cost devices too much; resumed
    /// sessions are then checked at CONNECT.
    pub resumption: bool,
    /// `config FILE`: the broker's configuration, to look for what would defeat the
    /// plugin. Default: the file that the broker's command line names.
    pub configuration: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            agent_user: DEFAULT_AGENT_USER.to_owned(),
            control_socket: None,
            instance_id: None,
            user_name: UserName::CommonName,
            certificateless: Certificateless::Deny,
            passwords: Passwords::Ignore,
            resumption: false,
            configuration: None,
        }
    }
}

/// An option that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plugin_opt_{key} {value}: {problem}")]
pub struct InvalidOption {
    /// Its name, without `plugin_opt_`.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What is wrong, and what would be right.
    pub problem: &'static str,
}

impl Options {
    /// Reads pairs of names and values.
    ///
    /// # Errors
    /// [`InvalidOption`], also for a name that is not known: a misspelt one would
    /// otherwise leave its default in force without a word.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, InvalidOption> {
        let mut options = Self::default();
        for (key, value) in pairs {
            options.set(key, value).map_err(|problem| InvalidOption {
                key: key.to_owned(),
                value: value.to_owned(),
                problem,
            })?;
        }
        if options.passwords == Passwords::Check && options.user_name == UserName::CommonName {
            return Err(InvalidOption {
                key: "passwords".to_owned(),
                value: "check".to_owned(),
                problem: "wants plugin_opt_username keep",
            });
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match (key, value) {
            ("agent_user", "") => return Err("is empty"),
            ("agent_user", name) => self.agent_user = name.to_owned(),
            ("control_socket", "") => return Err("is empty"),
            ("control_socket", path) => self.control_socket = Some(path.to_owned()),
            ("instance", id) => {
                self.instance_id = Some(id.parse().map_err(|_| "is not the name of an instance")?);
            }
            ("username", "common-name") => self.user_name = UserName::CommonName,
            ("username", "keep") => self.user_name = UserName::Keep,
            ("username", _) => return Err("is neither common-name nor keep"),
            ("certificateless", "deny") => self.certificateless = Certificateless::Deny,
            ("certificateless", "defer") => self.certificateless = Certificateless::Defer,
            ("certificateless", _) => return Err("is neither deny nor defer"),
            ("passwords", "ignore") => self.passwords = Passwords::Ignore,
            ("passwords", "check") => self.passwords = Passwords::Check,
            ("passwords", _) => return Err("is neither ignore nor check"),
            ("resumption", "off") => self.resumption = false,
            ("resumption", "on") => self.resumption = true,
            ("resumption", _) => return Err("is neither off nor on"),
            ("config", file) => self.configuration = Some(file.to_owned()),
            _ => return Err("is not an option of this plugin"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_read() {
        let pairs = [
            ("agent_user", "boss"),
            ("control_socket", "admin.sock"),
            ("instance", "factory"),
            ("username", "keep"),
            ("certificateless", "defer"),
            ("passwords", "check"),
            ("resumption", "on"),
            ("config", "mosquitto.conf"),
        ];
        let expected = Options {
            agent_user: "boss".to_owned(),
            control_socket: Some("admin.sock".to_owned()),
            instance_id: Some("factory".parse().unwrap()),
            user_name: UserName::Keep,
            certificateless: Certificateless::Defer,
            passwords: Passwords::Check,
            resumption: true,
            configuration: Some("mosquitto.conf".to_owned()),
        };
        assert_eq!(Options::parse(pairs).unwrap(), expected);
        assert_eq!(Options::parse([]).unwrap(), Options::default());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for pair in [
            ("resumption", "yes"),
            ("username", ""),
            ("certificateless", "allow"),
            ("control_socket", ""),
            ("passwords", "yes"),
            ("passwords", "check"),
            ("instance", "a.b"),
            ("agent_user", ""),
            ("resumptoin", "off"),
        ] {
            let error = Options::parse([pair]).unwrap_err();
            assert_eq!((error.key.as_str(), error.value.as_str()), pair);
        }
    }
}
