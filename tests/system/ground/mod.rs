//! The database set back behind what was acknowledged.

mod set_back;
mod stage;
mod way_out;
