//! Every statement of both engines, for a test that prepares each against the migrated
//! schema.

use catrust_domain::{BrokerState, CaCertificate, Instance, RecordedEvent};

use crate::queries::{self, Query};
use crate::tables::{ReplyRow, SpentRegisterCode};
use crate::{ground, postgres, refusals, search, sqlite};

/// Calls a function for each stored row that is written.
macro_rules! of_each_table {
    ($engine:ident::$function:ident) => {
        [
            $engine::$function::<RecordedEvent>(),
            $engine::$function::<Instance>(),
            $engine::$function::<CaCertificate>(),
            $engine::$function::<SpentRegisterCode>(),
            $engine::$function::<ReplyRow>(),
            $engine::$function::<BrokerState>(),
        ]
        .concat()
    };
}

fn shared() -> impl Iterator<Item = &'static &'static Query> {
    queries::LIST.iter().chain(ground::LIST_OF_EVIDENCE).chain(search::LIST).chain(refusals::LIST_OF_REFUSALS)
}

/// Those that run on Postgres.
#[must_use]
pub fn of_postgres() -> Vec<String> {
    let own = postgres::LIST.iter().chain(shared()).map(|query| query.text().to_owned());
    own.chain(postgres::whole_statements()).chain(of_each_table!(postgres::table_statements)).collect()
}

/// Those that run on SQLite.
#[must_use]
pub fn of_sqlite() -> Vec<String> {
    let lists = [sqlite::LIST, sqlite::LOAD, sqlite::RECEIPTS].into_iter().flatten();
    let own = lists.chain(shared()).map(|query| query.text().to_owned());
    own.chain(of_each_table!(sqlite::table_statements)).collect()
}
