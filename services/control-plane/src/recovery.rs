//! The way out of a log that was set back: what witnesses say that it had ([`testimony`]), and
//! the new epoch that begins with the stricter of both ([`beginning`]).

mod beginning;
mod testimony;

pub(crate) use self::beginning::{Beginning, RecoveryParts, as_fork};
pub(crate) use self::testimony::{GatheredLoss, WitnessedLog, answer, spell};
