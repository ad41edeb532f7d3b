//! Keeps the plugin in memory until the broker ends: OpenSSL goes on holding the
//! addresses of our callbacks after the broker has unloaded its plugins.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
