//! The edges: how Postgres and NATS prove who they are, and what each login there may do.

mod nats_attacks;
mod nats_rights;
mod postgres_tls;
mod security_page;
