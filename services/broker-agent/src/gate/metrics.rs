//! The numbers that a gate tells about itself, as Prometheus text.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::broker_trust::BrokerTrust;

/// Monotonic count, or a value that is set.
#[derive(Debug, Default)]
pub struct Value(AtomicU64);

impl Value {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts one.
    pub fn one(&self) {
        self.add(1);
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts of one gate.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections accepted from the socket.
    pub connections: Value,
    /// Connections closed at once because there were too many.
    pub connections_over_limit: Value,
    /// Handshakes that became a session, full ones.
    pub handshakes_full: Value,
    /// Handshakes that became a session, resumed ones.
    pub handshakes_resumed: Value,
    /// Handshakes that failed, devices refused in them included.
    pub handshakes_failed: Value,
    /// Handshakes that were not done in time.
    pub handshakes_timed_out: Value,
    /// Sessions refused after a handshake that succeeded.
    pub refused_after_handshake: Value,
    /// Sessions that sent nothing in time, or something else than CONNECT.
    pub no_connect: Value,
    /// Connects to the broker that failed or took too long.
    pub broker_unreachable: Value,
    /// Sessions ended because one side took nothing.
    pub stalled: Value,
    /// Last wills that were suppressed on a cut.
    pub wills_suppressed: Value,
    /// Bytes passed on to the broker.
    pub bytes_to_broker: Value,
    /// Bytes passed on to devices.
    pub bytes_to_devices: Value,
    /// Times that certificate and key were read again.
    pub identity_reloads: Value,
    /// Times that they could not be used.
    pub identity_reload_failures: Value,
}

impl Metrics {
    /// Writes everything in the Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn render(&self, trust: &BrokerTrust) -> String {
        let current = trust.current();
        let mut text = String::with_capacity(4096);
        let mut metric = |name: &str, kind: &str, help: &str, samples: &[(&str, u64)]| {
            let _ = writeln!(text, "# HELP catrust_gate_{name} {help}\n# TYPE catrust_gate_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "catrust_gate_{name}{labels} {value}");
            }
        };
        metric("connections_total", "counter", "Connections accepted", &[("", self.connections.get())]);
        metric(
            "connections_over_limit_total",
            "counter",
            "Connections closed at once: too many",
            &[("", self.connections_over_limit.get())],
        );
        metric(
            "handshakes_total",
            "counter",
            "TLS handshakes by outcome",
            &[
                ("{outcome=\"full\"}", self.handshakes_full.get()),
                ("{outcome=\"resumed\"}", self.handshakes_resumed.get()),
                ("{outcome=\"failed\"}", self.handshakes_failed.get()),
                ("{outcome=\"timed_out\"}", self.handshakes_timed_out.get()),
                ("{outcome=\"refused_after\"}", self.refused_after_handshake.get()),
            ],
        );
        metric(
            "no_connect_total",
            "counter",
            "Sessions without CONNECT in time",
            &[("", self.no_connect.get())],
        );
        metric(
            "broker_unreachable_total",
            "counter",
            "Connects to the broker that failed",
            &[("", self.broker_unreachable.get())],
        );
        metric("stalled_total", "counter", "Sessions ended for taking nothing", &[("", self.stalled.get())]);
        metric("sessions_cut_total", "counter", "Sessions cut", &[("", trust.cut_total())]);
        metric(
            "wills_suppressed_total",
            "counter",
            "Last wills suppressed",
            &[("", self.wills_suppressed.get())],
        );
        metric(
            "bytes_total",
            "counter",
            "Bytes passed on",
            &[
                ("{to=\"broker\"}", self.bytes_to_broker.get()),
                ("{to=\"device\"}", self.bytes_to_devices.get()),
            ],
        );
        metric(
            "identity_reloads_total",
            "counter",
            "Certificate reloads by outcome",
            &[
                ("{outcome=\"ok\"}", self.identity_reloads.get()),
                ("{outcome=\"failed\"}", self.identity_reload_failures.get()),
            ],
        );
        metric("sessions_open", "gauge", "Sessions open now", &[("", trust.registry().open() as u64)]);
        metric("sessions_ending", "gauge", "Sessions told to end", &[("", trust.registry().ending() as u64)]);
        metric(
            "trust_revision",
            "gauge",
            "Revision of the trust that is enforced",
            &[("", current.revision())],
        );
        metric(
            "trust_admits",
            "gauge",
            "1 while new sessions are admitted",
            &[("", u64::from(current.admits()))],
        );
        metric("trust_active", "gauge", "Active CA certificates", &[("", current.set().active() as u64)]);
        text
    }
}
