//! Keeps damage local: a stored row that does not fit fails the commands that need it, and none
//! that were only batched with them; and it is told once.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use catrust_domain::{CommandEnvelope, InstanceId, Rejection};

use crate::{CommandResults, StoreError};

/// Tables whose rows belong to one instance, or one request, each. Where the log itself is
/// damaged, no command fares better than another.
const LOCAL_TABLES: [&str; 5] = ["instances", "ca_certificates", "spent_register_codes", "replies", TAKEN];

/// Stands for the table where a row cannot be written beside those that are there: a row of the
/// read model is behind the log.
pub(crate) const TAKEN: &str = "read model";

/// Most rows that are remembered as told.
const MAX_TOLD: usize = 1_000;

/// Damaged rows that were told.
#[derive(Debug, Default)]
pub(crate) struct ToldDamage(Mutex<HashSet<String>>);

impl ToldDamage {
    /// Tells of a damaged row, by its table and key, the first time. Gives whether it did.
    pub(crate) fn tell(&self, error: &StoreError) -> bool {
        let StoreError::Corrupt { table, row, reason } = error else { return false };
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MAX_TOLD {
            told.clear();
        }
        if !told.insert(format!("{table}/{row}")) {
            return false;
        }
        tracing::error!(
            table,
            row,
            reason,
            "a stored row does not fit: what needs it fails; run `catrust-server verify`, and `rebuild` for a row of the read model"
        );
        true
    }
}

/// Appends the commands of one batch, or of a part of it, in one transaction.
pub(crate) trait AppendPart: Send {
    fn append_part(
        &mut self,
        commands: &[CommandEnvelope],
    ) -> impl Future<Output = Result<CommandResults, StoreError>> + Send;
}

/// Appends a batch. Where a row does not fit that one of the commands needs, the others are
/// appended without it, in transactions of their own, and it is refused.
pub(crate) async fn append_beside_damage(
    appender: &mut impl AppendPart,
    told: &ToldDamage,
    commands: &[CommandEnvelope],
) -> Result<CommandResults, StoreError> {
    let error = match appender.append_part(commands).await {
        Err(error) if is_local(&error) => error,
        answer => return answer,
    };
    told.tell(&error);
    let mut results: Vec<Option<_>> = commands.iter().map(|_| None).collect();
    let mut parts = divided((0..commands.len()).collect(), commands, &error);
    let mut recorded = false;
    while let Some(part) = parts.pop() {
        let of_part: Vec<CommandEnvelope> = part.iter().map(|index| commands[*index].clone()).collect();
        match appender.append_part(&of_part).await {
            Ok(answers) => {
                recorded = true;
                part.iter().zip(answers).for_each(|(index, answer)| results[*index] = Some(answer));
            }
            Err(error) if is_local(&error) => {
                told.tell(&error);
                match part[..] {
                    [index] => results[index] = Some(Err(Rejection::StoredRowDamaged)),
                    _ => parts.extend(divided(part, commands, &error)),
                }
            }
            // Of the other parts something may be recorded.
            Err(error) if recorded => return Err(StoreError::Ambiguous(error.into())),
            Err(error) => return Err(error),
        }
    }
    let whole: Option<CommandResults> = results.into_iter().collect();
    whole.ok_or_else(|| StoreError::Internal("a command of the batch was left out".into()))
}

fn is_local(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { table, .. } if LOCAL_TABLES.contains(table))
}

/// Parts of `part`, the first one last: the commands of the instance that the error names and
/// the others; or its halves. Those of one instance stay in their order.
fn divided(part: Vec<usize>, commands: &[CommandEnvelope], error: &StoreError) -> Vec<Vec<usize>> {
    let named = match error {
        StoreError::Corrupt { row, .. } => row.split('/').next().and_then(|id| id.parse::<InstanceId>().ok()),
        _ => None,
    };
    let is_named = |index: &usize| named.as_ref() == Some(&commands[*index].instance_id);
    let (of_named, others): (Vec<usize>, Vec<usize>) = part.into_iter().partition(is_named);
    if !of_named.is_empty() && !others.is_empty() {
        return vec![of_named, others];
    }
    let mut whole = if of_named.is_empty() { others } else { of_named };
    let rest = whole.split_off(whole.len() / 2);
    [rest, whole].into_iter().filter(|half| !half.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_row_is_told_once_by_table_and_key() {
        let told = ToldDamage::default();
        let of = |table, row: &str| StoreError::Corrupt { table, row: row.into(), reason: "torn".into() };
        assert!(told.tell(&of("instances", "one")));
        assert!(!told.tell(&of("instances", "one")));
        assert!(told.tell(&of("instances", "other")));
        assert!(told.tell(&of("ca_certificates", "one")));
        assert!(!told.tell(&StoreError::SetBack { reason: String::new() }));
    }
}
