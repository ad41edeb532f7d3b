//! The words of policies: `schema.cedarschema`, and its names as Cedar takes them.

use std::sync::LazyLock;

use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema};

use crate::Action;

/// The schema, with its documentation, for authors of policies and their tools.
pub const SCHEMA: &str = include_str!("schema.cedarschema");

/// The schema as validation needs it. A test reads it.
pub(crate) fn parsed() -> Result<Schema, String> {
    Schema::from_cedarschema_str(SCHEMA).map(|(schema, _warnings)| schema).map_err(|error| error.to_string())
}

/// An entity type of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntityKind {
    Principal,
    PrincipalPattern,
    Instance,
    ResourcePattern,
    Action,
}

impl EntityKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Principal => "Principal",
            Self::PrincipalPattern => "PrincipalPattern",
            Self::Instance => "Instance",
            Self::ResourcePattern => "ResourcePattern",
            Self::Action => "Action",
        }
    }

    /// The entity of that name.
    pub(crate) fn entity(self, id: impl AsRef<str>) -> EntityUid {
        EntityUid::from_type_name_and_id(TYPES[self as usize].clone(), EntityId::new(id))
    }
}

static TYPES: LazyLock<[EntityTypeName; 5]> = LazyLock::new(|| {
    use EntityKind::{Action, Instance, Principal, PrincipalPattern, ResourcePattern};
    [Principal, PrincipalPattern, Instance, ResourcePattern, Action]
        .map(|kind| kind.name().parse().expect("a plain identifier names a type"))
});

static ACTIONS: LazyLock<[EntityUid; Action::ALL.len()]> =
    LazyLock::new(|| Action::ALL.map(|action| EntityKind::Action.entity(action.name())));

/// The action as Cedar knows it.
pub(crate) fn action(action: Action) -> EntityUid {
    ACTIONS[action as usize].clone()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_schema_knows_every_action_and_no_other() {
        let schema = parsed().unwrap();
        let known: BTreeSet<String> = schema.actions().map(ToString::to_string).collect();
        assert_eq!(known, Action::ALL.into_iter().map(|a| action(a).to_string()).collect());
        for (index, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, index);
            assert_eq!(Action::find(action.name()), Some(action));
        }
    }

    #[test]
    fn the_schema_knows_every_type_and_no_other() {
        let schema = parsed().unwrap();
        let known: BTreeSet<String> = schema.entity_types().map(ToString::to_string).collect();
        assert_eq!(known, TYPES[..4].iter().map(ToString::to_string).collect());
    }
}
