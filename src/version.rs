//! What this binary is.

/// One line: version, commit if the build was told it, target, profile. The commit comes from the
/// variable `SLUICE_COMMIT` at build time (`make build` sets it), so that no build script has to run
/// and a plain `cargo build` stays cached from one commit to the next.
pub(crate) fn text() -> String {
    let commit = option_env!("SLUICE_COMMIT").filter(|commit| !commit.is_empty());
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!(
        "sluice {} (commit {}, {}-{}, {profile})",
        env!("CARGO_PKG_VERSION"),
        commit.unwrap_or("unknown"),
        std::env::consts::ARCH,
        std::env::consts::OS,
    )
}
