//! The callers of the table: for each column one for ordinary calls and one who operates
//! catrust, by certificate and by token.

use catrust_tests::client::Caller;
use catrust_tests::deployment::{ACCOUNT, Identity, Plan};
use catrust_tests::issuer::{self, Key, Publisher, claims};
use catrust_tests::tls::Tls;
use serde_json::json;

/// Account of the stranger, whose own policies allow it everything.
const STRANGERS_ACCOUNT: &str = "account-b";

/// A way of being refused, or of being allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Column {
    /// Shows nothing.
    NoIdentity,
    /// Shows what nobody here knows.
    WrongIdentity,
    /// May do everything, and belongs to another account.
    OtherAccount,
    /// Has no policy.
    NoPolicy,
    /// One policy allows everything, another denies it.
    DenyWins,
    /// May do everything but `mq:MqttInstanceAccess`.
    WithoutDependent,
    /// May do everything, on an instance that is not Platinum.
    WrongEdition,
    /// May do everything.
    Allowed,
}

/// In the order of the checks.
pub const COLUMNS: [Column; Column::Allowed as usize + 1] = [
    Column::NoIdentity,
    Column::WrongIdentity,
    Column::OtherAccount,
    Column::NoPolicy,
    Column::DenyWins,
    Column::WithoutDependent,
    Column::WrongEdition,
    Column::Allowed,
];

/// What a caller shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Credential {
    Certificate,
    Token,
}

impl Column {
    /// Name of the principal.
    fn principal(self, operator: bool) -> Option<String> {
        let name = match self {
            Self::NoIdentity | Self::WrongIdentity => return None,
            Self::OtherAccount => "stranger",
            Self::NoPolicy => "nobody",
            Self::DenyWins => "denied",
            Self::WithoutDependent => "half",
            Self::WrongEdition | Self::Allowed => "allowed",
        };
        // The stranger is no operator: the owner check does not apply to those.
        let operator = operator && self != Self::OtherAccount;
        Some(if operator { format!("{name}-operator") } else { name.to_owned() })
    }

    fn account(self) -> &'static str {
        if self == Self::OtherAccount { STRANGERS_ACCOUNT } else { ACCOUNT }
    }
}

fn is_operator(principal: &str) -> bool {
    principal.ends_with("-operator")
}

fn certificate_name(principal: &str) -> String {
    format!("spiffe://example.org/{principal}")
}

/// The policies of [`ACCOUNT`].
fn policies() -> String {
    let permit = |principal: &str, condition: &str| {
        format!("permit(principal == Principal::\"{principal}\", action, resource){condition};\n")
    };
    let mut text = String::new();
    for end in ["", "-operator"] {
        text += &permit(&format!("allowed{end}"), "");
        text += &permit(&format!("denied{end}"), "");
        text += &format!("forbid(principal == Principal::\"denied{end}\", action, resource);\n");
        let condition = " when { action != Action::\"mq:MqttInstanceAccess\" }";
        text += &permit(&format!("half{end}"), condition);
    }
    text
}

/// Everybody in the table.
pub struct Callers {
    tls: Tls,
    key: Key,
    strangers_key: Key,
    address: String,
}

impl Callers {
    /// The callers, where the issuer's key is published, and the plan that knows them.
    pub async fn plan(tls: Tls) -> anyhow::Result<(Self, Publisher, Plan)> {
        let (key, strangers_key) = (Key::es256("k")?, Key::es256("k")?);
        let publisher = Publisher::start(&[&key]).await?;
        let everything = "permit(principal == Principal::\"stranger\", action, resource);";
        let mut plan = issuer::plan(tls.plan(Plan { nats: None, ..Plan::default() }))
            .set("auth.jwt.key_set_url", &format!("{:?}", publisher.url()))
            .set("auth.jwt.operator_claim", "\"catrust_operator\"")
            .policy(&format!("{ACCOUNT}/matrix.cedar"), &policies())
            .policy(&format!("{STRANGERS_ACCOUNT}/matrix.cedar"), everything);
        let mut known = std::collections::BTreeMap::new();
        for column in COLUMNS {
            for principal in [true, false].into_iter().filter_map(|operator| column.principal(operator)) {
                known.insert(principal, column.account());
            }
        }
        for (principal, account) in known {
            plan = plan.identity(Identity {
                certificate: Some(certificate_name(&principal)),
                operator: is_operator(&principal),
                account: account.to_owned(),
                principal,
                ..Identity::default()
            });
        }
        Ok((Self { tls, key, strangers_key, address: String::new() }, publisher, plan))
    }

    /// Those callers at a server.
    pub fn at(self, address: &str) -> Self {
        Self { address: address.to_owned(), ..self }
    }

    /// Somebody with a token of the identities file.
    pub fn with_token(&self, token: &str) -> anyhow::Result<Caller> {
        Caller::tls(&self.address, &self.tls.server_ca.pem, None, Some(token))
    }

    /// The caller of a column.
    pub fn of(&self, column: Column, operator: bool, credential: Credential) -> anyhow::Result<Caller> {
        let (leaf, token) = match (column.principal(operator), credential) {
            (None, _) if column == Column::NoIdentity => (None, None),
            (None, Credential::Certificate) => {
                (Some(self.tls.client_ca.client(&certificate_name("unknown"))?), None)
            }
            (None, Credential::Token) => (None, Some(self.strangers_key.token(&claims("allowed")))),
            (Some(principal), Credential::Certificate) => {
                (Some(self.tls.client_ca.client(&certificate_name(&principal))?), None)
            }
            (Some(principal), Credential::Token) => {
                let mut claims = claims(&principal);
                claims["account_id"] = json!(column.account());
                claims["catrust_operator"] = json!(is_operator(&principal));
                (None, Some(self.key.token(&claims)))
            }
        };
        Caller::tls(&self.address, &self.tls.server_ca.pem, leaf.as_ref(), token.as_deref())
    }
}
