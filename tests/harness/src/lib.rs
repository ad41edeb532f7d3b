//! The servers that tests run, the processes they are, and bounded waiting.
//!
//! A server has free ports of 127.0.0.1 and a directory of its own. It ends with its
//! owner; where the test's process dies first, the kernel ends the server and a shell
//! removes the directory.

pub mod directory;
pub mod eventually;
pub mod mosquitto;
pub mod nats;
pub mod postgres;
pub mod process;
pub mod program;
pub mod proxy;
pub mod replication;
pub mod set_back;
