//! Signing keys that change, and what agents make of messages by others.

mod desk;
mod hostile;
mod rotation;
mod servers;
mod site;
mod validity;
