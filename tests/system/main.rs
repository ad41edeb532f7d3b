//! The whole system from outside: real servers, real kills, foreign clients.
//!
//! One test program for all cases, since linking many would cost more time than
//! running them. Each case has servers of its own.

mod audit;
mod contract;
mod crash;
mod demo;
mod edges;
mod errors;
mod failover;
mod faults;
mod feed;
mod fleet;
mod foreign;
mod ground;
mod harness;
mod identity;
mod keys;
mod lifecycle;
mod matrix;
mod parts;
mod permission;
mod rate_limit;
mod reload;
mod replicas;
mod site;
mod telemetry;
mod tokens;
mod walls;
mod words;
