//! Brings the sources together. Every value of every source is read, also one that a later source
//! overrides, and everything that is wrong is reported at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::keys::{KEYS, Key, find};
use super::setting::toml_string;
use super::{Config, check, file};

/// Names the configuration file, where the command line does not.
pub(crate) const FILE_VARIABLE: &str = "SLUICE_CONFIG";

/// Variables that begin as ours do and are not keys: for builds and tests of Sluice.
const OTHER_VARIABLES: [&str; 4] =
    [FILE_VARIABLE, "SLUICE_BIN", "SLUICE_TARGET_DIR", "SLUICE_COMMIT"];

/// What values are read from, besides the defaults.
#[derive(Default)]
pub(crate) struct Sources {
    /// The file's path and text.
    pub(crate) file: Option<(PathBuf, String)>,
    /// Name and value; those of others are passed over.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Key, the flag that gave it, value.
    pub(crate) flags: Vec<(&'static str, &'static str, String)>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// The file, and the line from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A whole configuration, and where each value came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(super) origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Where the value of that key came from.
    pub(super) fn origin(&self, key: &Key) -> &Origin {
        self.origins.get(key.name).unwrap_or(&Origin::Default)
    }
}

/// Everything that is wrong, one line each.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid(pub(super) Vec<String>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Invalid {}

/// Reads the sources, each over the one before.
pub(crate) fn load(sources: Sources) -> Result<Loaded, Invalid> {
    let mut loading = Loading::default();
    if let Some((path, text)) = sources.file {
        loading.read_file(&path, &text);
    }
    loading.read_environment(sources.environment);
    for (name, flag, value) in sources.flags {
        let key = find(name).expect("flags name keys of the table");
        loading.set(key, Origin::Flag(flag), Ok(value));
    }
    let Loading { loaded, mut problems } = loading;
    check::fit(&loaded, &mut problems);
    if problems.is_empty() { Ok(loaded) } else { Err(Invalid(problems)) }
}

struct Loading {
    loaded: Loaded,
    problems: Vec<String>,
}

impl Default for Loading {
    fn default() -> Self {
        let loaded = Loaded { config: Config::default(), origins: BTreeMap::new() };
        Self { loaded, problems: Vec::new() }
    }
}

impl Loading {
    fn read_file(&mut self, path: &std::path::Path, text: &str) {
        let entries = match file::parse(text) {
            Ok(entries) => entries,
            Err(malformed) => {
                let file::Malformed { line, reason } = malformed;
                self.problems.push(format!("{}:{line}: not TOML: {reason}", path.display()));
                return;
            }
        };
        for entry in entries {
            let origin = Origin::File(path.to_owned(), entry.line);
            match find(&entry.name) {
                Some(key) => self.set(key, origin, entry.value),
                None => self.unknown(&entry.name, &entry.name, &origin),
            }
        }
    }

    fn read_environment(&mut self, environment: Vec<(OsString, OsString)>) {
        let mut ours: Vec<(String, OsString)> = environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with("SLUICE_"))
            .filter(|(name, _)| !OTHER_VARIABLES.contains(&name.as_str()))
            .filter(|(name, _)| !is_service_link(name))
            .collect();
        ours.sort();
        for (name, value) in ours {
            match KEYS.iter().find(|key| key.variable() == name) {
                Some(key) => {
                    let value = value.into_string().map_err(|_| "not UTF-8");
                    self.set(key, Origin::Variable(name), value);
                }
                None => {
                    let section = name["SLUICE_".len()..].to_ascii_lowercase().replace('_', ".");
                    self.unknown(&name, &section, &Origin::Variable(name.clone()));
                }
            }
        }
    }

    fn set(&mut self, key: &'static Key, origin: Origin, value: Result<String, &'static str>) {
        let field = (key.field)(&mut self.loaded.config);
        let allowed = field.allowed(key.bounds);
        let problem = match value {
            Err(kind) => format!("is {kind}; it must be {allowed}"),
            Ok(text) => match field.set(&text, key.bounds) {
                Ok(()) => {
                    self.loaded.origins.insert(key.name, origin);
                    return;
                }
                Err(refusal) => {
                    let given = if refusal.hide { "****".to_owned() } else { toml_string(&text) };
                    match refusal.reason {
                        Some(reason) => format!("is {given}: {reason}"),
                        None => format!("is {given}; it must be {allowed}"),
                    }
                }
            },
        };
        self.problems.push(format!("{} ({origin}) {problem}", key.name));
    }

    /// The value is not printed: nobody knows what it is.
    fn unknown(&mut self, given: &str, dotted: &str, origin: &Origin) {
        let looks_secret =
            ["secret", "password", "token", "access_key", "access.key", "credential"];
        if looks_secret.iter().any(|word| dotted.to_ascii_lowercase().contains(word)) {
            self.problems.push(format!(
                "{given} ({origin}) is not a key; credentials are not configured here: set \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
            ));
            return;
        }
        let section = dotted.split('.').next().unwrap_or_default();
        let near: Vec<&str> = KEYS
            .iter()
            .filter(|key| key.section() == section && !section.is_empty())
            .map(|key| key.name)
            .collect();
        let hint = if near.is_empty() {
            "`sluice config show` lists all".to_owned()
        } else {
            format!("[{section}] has {}", near.join(", "))
        };
        self.problems.push(format!("{given} ({origin}) is not a key; {hint}"));
    }
}

/// Kubernetes and container links put variables into every process for a service of the name
/// `sluice-...`: `_SERVICE_HOST`, `_SERVICE_PORT`, `_PORT`, `_PORT_9092_TCP_ADDR` and the like.
/// No key ends so (a test sees to it).
pub(super) fn is_service_link(name: &str) -> bool {
    let port = |rest: &str| {
        let mut parts = rest.split('_');
        parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
            && parts.next().is_none_or(|part| ["ADDR", "PORT", "PROTO"].contains(&part))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| port(rest))
}
