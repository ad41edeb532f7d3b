//! The edges: how Postgres and NATS prove who they are, and what each login there may do.

mod postgres_tls;
