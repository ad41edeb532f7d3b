//! `given(history).when(command).then(events)`.

use catrust_domain::{Command, CommandEnvelope, Event, Rejection, Reply, Timestamp};

use crate::fixtures::{asked, asked_by, fleet};
use crate::memory_store::MemoryStore;

/// When the batches of [`Given`] are committed; the history is older.
pub const NOW: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

/// A log of `fleet-1`, written without asking the rules.
pub fn given(history: impl IntoIterator<Item = Event>) -> Given {
    let mut store = MemoryStore::new();
    for event in history {
        store.remember(&fleet(), &event);
    }
    Given { store }
}

#[derive(Clone)]
pub struct Given {
    pub store: MemoryStore,
}

impl Given {
    /// The owner asks.
    pub fn when(self, command: Command) -> When {
        self.when_batch([asked(command)])
    }

    /// Somebody of the account `caller` asks.
    pub fn when_by(self, caller: &str, command: Command) -> When {
        self.when_batch([asked_by(caller, command)])
    }

    /// All of them ask within one batch.
    pub fn when_batch(mut self, commands: impl IntoIterator<Item = CommandEnvelope>) -> When {
        let before = self.store.events.len();
        let results = self.store.append(NOW, &commands.into_iter().collect::<Vec<_>>());
        assert_eq!(self.store.read_model(), self.store.fold(), "the read model is the folded log");
        let events =
            self.store.events[before..].iter().map(|event| event.decode().expect("readable")).collect();
        When { results, events, store: self.store }
    }
}

pub struct When {
    pub results: Vec<Result<Reply, Rejection>>,
    pub events: Vec<Event>,
    pub store: MemoryStore,
}

impl When {
    /// The command changed something, and these events say what.
    #[track_caller]
    pub fn then(self, events: impl IntoIterator<Item = Event>) -> Reply {
        assert_eq!(self.events, events.into_iter().collect::<Vec<_>>());
        let reply = self.only_result().expect("accepted");
        assert!(reply.changed, "{reply:?}");
        reply
    }

    /// The command succeeded, and the asked-for state held already.
    #[track_caller]
    pub fn then_nothing(self) -> Reply {
        assert_eq!(self.events, []);
        let reply = self.only_result().expect("accepted");
        assert!(!reply.changed, "{reply:?}");
        reply
    }

    /// The rules refused the command, and nothing was recorded.
    #[track_caller]
    pub fn then_refused(self, rejection: Rejection) {
        assert_eq!(self.events, []);
        assert_eq!(self.only_result(), Err(rejection));
    }

    #[track_caller]
    fn only_result(self) -> Result<Reply, Rejection> {
        let [result] = <[_; 1]>::try_from(self.results).expect("one command");
        result
    }
}
