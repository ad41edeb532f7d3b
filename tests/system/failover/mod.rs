//! A primary that goes, and a standby that takes its place.

mod pair;
mod promotion;
