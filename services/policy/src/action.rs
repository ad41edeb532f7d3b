//! The vendor's names for what callers may do, one per call of the contract.

/// Something that a policy can allow. [`Action::dependent`] names what must be
/// allowed besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `GetRegisterCode`.
    GetRegisterCode,
    /// `RegisterCaCertificate`.
    RegisterCa,
    /// `GetCaCertificate`.
    GetCaCertificate,
    /// `ListCaCertificates`.
    ListCaCertificate,
    /// `InactivateCaCertificate`. The vendor's name says "unregister".
    UnregisterCaCertificate,
    /// `ActivateCaCertificate`.
    ActiveCaCertificate,
    /// `DeleteCaCertificate`.
    DeleteCaCertificate,
    /// `ListCaCertificateEvents`.
    ListCaCertificateEvents,
    /// What changes of state need besides.
    MqttInstanceAccess,
    /// `RegisterInstance`.
    RegisterInstance,
    /// `UpdateInstance`.
    UpdateInstance,
    /// `GetInstance`.
    GetInstance,
    /// `ListInstances`.
    ListInstances,
    /// `GetTrustBundle`.
    GetTrustBundle,
    /// `WatchTrust`.
    WatchTrust,
    /// `ReportReceipt`.
    ReportReceipt,
    /// `ListBrokers`.
    ListBrokers,
    /// `GetPropagation` and `WatchPropagation`.
    GetPropagation,
    /// `ListRefusals`.
    ListRefusals,
}

impl Action {
    /// Every action, in the order of the enum.
    pub const ALL: [Self; Self::ListRefusals as usize + 1] = [
        Self::GetRegisterCode,
        Self::RegisterCa,
        Self::GetCaCertificate,
        Self::ListCaCertificate,
        Self::UnregisterCaCertificate,
        Self::ActiveCaCertificate,
        Self::DeleteCaCertificate,
        Self::ListCaCertificateEvents,
        Self::MqttInstanceAccess,
        Self::RegisterInstance,
        Self::UpdateInstance,
        Self::GetInstance,
        Self::ListInstances,
        Self::GetTrustBundle,
        Self::WatchTrust,
        Self::ReportReceipt,
        Self::ListBrokers,
        Self::GetPropagation,
        Self::ListRefusals,
    ];

    /// The action of that name. Case matters.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    /// Name in policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GetRegisterCode => "mq:GetRegisterCode",
            Self::RegisterCa => "mq:RegisterCa",
            Self::GetCaCertificate => "mq:GetCaCertificate",
            Self::ListCaCertificate => "mq:ListCaCertificate",
            Self::UnregisterCaCertificate => "mq:UnregisterCaCertificate",
            Self::ActiveCaCertificate => "mq:ActiveCaCertificate",
            Self::DeleteCaCertificate => "mq:DeleteCaCertificate",
            Self::ListCaCertificateEvents => "mq:ListCaCertificateEvents",
            Self::MqttInstanceAccess => "mq:MqttInstanceAccess",
            Self::RegisterInstance => "mq:RegisterInstance",
            Self::UpdateInstance => "mq:UpdateInstance",
            Self::GetInstance => "mq:GetInstance",
            Self::ListInstances => "mq:ListInstances",
            Self::GetTrustBundle => "mq:GetTrustBundle",
            Self::WatchTrust => "mq:WatchTrust",
            Self::ReportReceipt => "mq:ReportReceipt",
            Self::ListBrokers => "mq:ListBrokers",
            Self::GetPropagation => "mq:GetPropagation",
            Self::ListRefusals => "mq:ListRefusals",
        }
    }

    /// The action, and the one that must be allowed as well.
    pub fn with_dependent(self) -> impl Iterator<Item = Self> {
        std::iter::once(self).chain(self.dependent())
    }

    /// The action that must be allowed as well.
    #[must_use]
    pub const fn dependent(self) -> Option<Self> {
        match self {
            Self::UnregisterCaCertificate | Self::ActiveCaCertificate => Some(Self::MqttInstanceAccess),
            _ => None,
        }
    }
}
