//! How often a user may call, and how much it may hold.

mod fleet;
mod headers;
mod hostile;
mod load;
mod one_replica;
mod shedding;
mod streams;
