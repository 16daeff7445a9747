//! Two views of the table of keys: the effective values, as a file that reads back to the same, and
//! the reference for users, as Markdown.

use std::ffi::OsString;
use std::fmt::Write;

use super::Config;
use super::keys::{KEYS, Key};
use super::load::Loaded;

/// The variables by which the S3 client finds its credentials. `true`: the value is a secret.
const BUCKET_VARIABLES: [(&str, bool); 8] = [
    ("AWS_ACCESS_KEY_ID", true),
    ("AWS_SECRET_ACCESS_KEY", true),
    ("AWS_SESSION_TOKEN", true),
    ("AWS_REGION", false),
    ("AWS_DEFAULT_REGION", false),
    ("AWS_ENDPOINT_URL", true),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", false),
    ("AWS_ROLE_ARN", false),
];

/// Every key with its value and where that came from, and which of the bucket's variables are set.
pub(crate) fn show(loaded: &Loaded, environment: &[(OsString, OsString)]) -> String {
    let mut config = loaded.config.clone();
    let mut out = String::new();
    let mut section = "";
    for key in KEYS {
        if key.section() != section {
            section = key.section();
            line(&mut out, format_args!("\n[{section}]"));
        }
        let origin = loaded.origin(key);
        match (key.field)(&mut config).toml() {
            Some(value) => {
                let set = format!("{} = {value}", key.short());
                line(&mut out, format_args!("{set:<44} # {origin}"));
            }
            None => line(&mut out, format_args!("# {} is not set ({origin})", key.short())),
        }
    }
    for (name, secret) in BUCKET_VARIABLES {
        let Some((_, value)) = environment.iter().find(|(variable, _)| variable == name) else {
            continue;
        };
        let value = if secret { "****".into() } else { value.to_string_lossy() };
        line(&mut out, format_args!("# environment {name} is {value}"));
    }
    out
}

/// docs/configuration.md.
pub(crate) fn reference() -> String {
    let mut config = Config::default();
    let mut out = String::from(INTRODUCTION);
    let mut section = None;
    for key in KEYS {
        if section != Some(key.section()) {
            section = Some(key.section());
            let title = match key.section() {
                "" => "Before the first section".to_owned(),
                name => format!("`[{name}]`"),
            };
            line(&mut out, format_args!("\n## {title}"));
        }
        describe(&mut out, key, &mut config);
    }
    out
}

fn describe(out: &mut String, key: &Key, config: &mut Config) {
    let field = (key.field)(config);
    let default = match field.toml() {
        Some(value) => format!("`{value}`"),
        None => "not set".to_owned(),
    };
    line(out, format_args!("\n### `{}`\n\n{}\n", key.name, key.doc));
    line(out, format_args!("- Allowed: {}", field.allowed(key.bounds)));
    line(out, format_args!("- Default: {default}"));
    line(out, format_args!("- Environment: `{}`", key.variable()));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes all that is written");
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Made by `make docs` from src/config/keys.rs. A test fails when it is not current. -->

Sluice runs without any configuration. What it can be told comes from four places, each over the one
before: the defaults below, a TOML file, environment variables, and flags of the command line
(`sluice up --help`). The file is the one that `--config` or the variable `SLUICE_CONFIG` names; there
is no file that is looked for on its own.

The variable of a key is `SLUICE_`, the section and the key, in capitals with underscores between:
`kafka.max_frame_bytes` is `SLUICE_KAFKA_MAX_FRAME_BYTES`. The value is written as in the file, without
quotes. An empty value unsets a key that has no default.

Sizes have a unit of 1024 (`B`, `KiB`, `MiB`, `GiB`, `TiB`) or are bytes; times must have one (`ms`,
`s`, `m`, `h`, `d`). In the file both stand in quotes: `segment_bytes = \"32MiB\"`.

An unknown key or variable, and a value that is not allowed, is an error that names the key, the place
it came from and what is allowed; the process then ends with exit code 2 and has changed nothing.
`sluice config check` looks only; `sluice config show` prints every value and where it came from.
";
