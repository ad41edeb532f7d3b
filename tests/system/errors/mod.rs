//! Every row of the error table, and hostile input at every field.

mod certificates;
mod fields;
mod limits;
mod wire;
