//! Compares the read model as stored with the one that the log folds to, row by
//! row and field by field.

use std::collections::{BTreeMap, BTreeSet};

use catrust_domain::read_model::ReadModel;
use catrust_domain::{CaCertificate, Event, Instance, RecordedEvent};

use crate::report::{Damage, DamageKind};
use crate::row::{Row, StoredRow as _, corrupt};
use crate::rows::Rows;
use crate::walk::MAX_DAMAGE;
use crate::{StoreError, queries};

/// Rows read at once: about 2 MB of a usual read model.
const CHUNK: u32 = 1_000;

/// Keys of rows that are missing, different, or should not be there. Texts as
/// stored, since a damaged key need not parse.
#[derive(Debug, Default)]
pub(crate) struct Differing {
    pub(crate) instances: BTreeSet<String>,
    pub(crate) certificates: BTreeSet<(String, String)>,
    pub(crate) spent_codes: BTreeSet<(String, String)>,
    /// Instances whose bundle digest is not the folded one.
    pub(crate) digests: BTreeSet<String>,
}

impl Differing {
    /// Adds the rows that an event touches.
    pub(crate) fn add(&mut self, row: &RecordedEvent, event: &Event) {
        let id = row.instance_id.as_str();
        self.instances.insert(id.to_owned());
        if let Some(effect) = event.trust_effect() {
            self.certificates.insert((id.to_owned(), effect.certificate.sn.to_string()));
        }
        if let Event::CaCertificateRegistered(payload) = event {
            self.spent_codes.insert((id.to_owned(), payload.register_code.clone()));
        }
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) instances: u64,
    pub(crate) certificates: u64,
    pub(crate) differing: Differing,
    pub(crate) damage: Vec<Damage>,
}

/// Compares what `db` sees with `folded`.
pub(crate) async fn compare(db: &mut impl Rows, folded: &ReadModel) -> Result<Comparison, StoreError> {
    let mut comparison = Comparison::default();
    comparison.instances(db, folded).await?;
    comparison.certificates(db, folded).await?;
    comparison.spent_codes(db, folded).await?;
    Ok(comparison)
}

impl Comparison {
    async fn instances(&mut self, db: &mut impl Rows, folded: &ReadModel) -> Result<(), StoreError> {
        let mut missing: BTreeSet<&str> = folded.instances().map(|i| i.instance_id.as_str()).collect();
        let mut after = String::new();
        loop {
            let rows = db.rows(&queries::ALL_INSTANCES, &[(&after).into(), CHUNK.into()]).await?;
            for row in &rows {
                self.instances += 1;
                let key = key(row, 0)?;
                missing.remove(key.as_str());
                self.instance(folded, &key, Instance::read(row, 0));
                after = key;
            }
            if rows.len() < CHUNK as usize {
                break;
            }
        }
        for id in missing {
            self.note(format!("instance {id} is missing"));
            self.differing.instances.insert(id.to_owned());
            self.differing.digests.insert(id.to_owned());
        }
        Ok(())
    }

    fn instance(&mut self, folded: &ReadModel, key: &str, row: Result<Instance, StoreError>) {
        let wanted = key.parse().ok().and_then(|id| folded.instance(&id));
        let fields = match (&row, wanted) {
            (Ok(row), Some(wanted)) if row == wanted => return,
            (Ok(row), Some(wanted)) => row.differences(wanted).join(", "),
            (Err(error), Some(_)) => error.to_string(),
            (_, None) => "the log has no such instance".into(),
        };
        self.note(format!("instance {key}: {fields}"));
        self.differing.instances.insert(key.to_owned());
        if row.ok().map(|row| row.bundle_digest) != wanted.map(|wanted| wanted.bundle_digest) {
            self.differing.digests.insert(key.to_owned());
        }
    }

    async fn certificates(&mut self, db: &mut impl Rows, folded: &ReadModel) -> Result<(), StoreError> {
        let mut missing: BTreeSet<(String, String)> =
            folded.certificates().map(|c| (c.instance_id.to_string(), c.facts.sn.to_string())).collect();
        let mut after = (String::new(), String::new());
        loop {
            let binds = [(&after.0).into(), (&after.1).into(), CHUNK.into()];
            let rows = db.rows(&queries::ALL_CERTIFICATES, &binds).await?;
            for row in &rows {
                self.certificates += 1;
                let key = (key(row, 0)?, key(row, 1)?);
                missing.remove(&key);
                self.certificate(folded, &key, CaCertificate::read(row, 0));
                after = key;
            }
            if rows.len() < CHUNK as usize {
                break;
            }
        }
        for (id, sn) in missing {
            self.note(format!("CA certificate {id}/{sn} is missing"));
            self.differing.certificates.insert((id, sn));
        }
        Ok(())
    }

    fn certificate(
        &mut self,
        folded: &ReadModel,
        key: &(String, String),
        row: Result<CaCertificate, StoreError>,
    ) {
        let parsed = key.0.parse().ok().zip(key.1.parse().ok());
        let wanted = parsed.and_then(|(id, sn)| folded.certificate(&id, &sn));
        let fields = match (&row, wanted) {
            (Ok(row), Some(wanted)) if row == wanted => return,
            (Ok(row), Some(wanted)) => row.differences(wanted).join(", "),
            (Err(error), Some(_)) => error.to_string(),
            (_, None) => "the log has no such CA certificate".into(),
        };
        self.note(format!("CA certificate {}/{}: {fields}", key.0, key.1));
        self.differing.certificates.insert(key.clone());
    }

    async fn spent_codes(&mut self, db: &mut impl Rows, folded: &ReadModel) -> Result<(), StoreError> {
        let mut wanted: BTreeMap<(String, String), u64> = folded
            .spent_register_codes()
            .map(|(id, code, position)| ((id.to_string(), code.to_owned()), position))
            .collect();
        let mut after = (String::new(), String::new());
        loop {
            let binds = [(&after.0).into(), (&after.1).into(), CHUNK.into()];
            let rows = db.rows(&queries::ALL_SPENT_CODES, &binds).await?;
            for row in &rows {
                let key = (key(row, 0)?, key(row, 1)?);
                let found = row.get(2).ok();
                let position = wanted.remove(&key);
                if position.is_none() || position != found {
                    let text = format!("spent at {found:?}, the log says {position:?}");
                    self.note(format!("register code {}/{}: {text}", key.0, key.1));
                    self.differing.spent_codes.insert(key.clone());
                }
                after = key;
            }
            if rows.len() < CHUNK as usize {
                break;
            }
        }
        for (id, code) in wanted.into_keys() {
            self.note(format!("spent register code {id}/{code} is missing"));
            self.differing.spent_codes.insert((id, code));
        }
        Ok(())
    }

    fn note(&mut self, description: String) {
        if self.damage.len() < MAX_DAMAGE {
            self.damage.push(Damage { kind: DamageKind::ReadModel, position: None, description });
        }
    }
}

fn key(row: &impl Row, index: usize) -> Result<String, StoreError> {
    row.get(index).map_err(|reason| corrupt("read model", &[], reason))
}
