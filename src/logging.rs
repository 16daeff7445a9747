//! The log of the process: structured lines on stderr, text on a terminal and JSON otherwise. stdout
//! stays free for the ready line. A panic of a task is a log line like any other.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Log, LogFilter, LogFormat};

/// Starts logging for the whole process. Only the first call has an effect.
pub(crate) fn start(log: &Log) {
    let terminal = std::io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = if is_text(log.format, terminal) {
        layer.with_ansi(terminal).boxed()
    } else {
        layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    };
    let filtered = tracing_subscriber::registry().with(layer.with_filter(targets(&log.level)));
    if filtered.try_init().is_ok() {
        std::panic::set_hook(Box::new(report_panic));
    }
}

fn is_text(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    }
}

/// The S3 client logs each of its retries; whoever gives up logs it once with what it was for. So it is
/// quiet unless the configuration names it.
const QUIET: &str = "object_store";

fn targets(level: &LogFilter) -> Targets {
    let chosen: Targets = level.0.parse().expect("the configuration has checked the levels");
    if chosen.iter().any(|(target, _)| target.starts_with(QUIET)) {
        return chosen;
    }
    match chosen.default_level() {
        Some(default) => chosen.with_target(QUIET, default.min(LevelFilter::WARN)),
        None => chosen,
    }
}

fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    let backtrace = std::backtrace::Backtrace::capture();
    tracing::error!(location, message, %backtrace, "a task has panicked: this is a bug");
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_terminal_gets_text_and_a_pipe_json() {
        assert!(is_text(LogFormat::Auto, true));
        assert!(!is_text(LogFormat::Auto, false));
        assert!(is_text(LogFormat::Text, false));
        assert!(!is_text(LogFormat::Json, true));
    }

    #[test]
    fn the_name_of_the_product_is_all_of_its_crates() {
        let targets = targets(&LogFilter("info,sluice=debug".to_owned()));
        assert!(targets.would_enable("sluice::up", &Level::DEBUG));
        assert!(targets.would_enable("sluice_gateway::http", &Level::DEBUG));
        assert!(!targets.would_enable("h2::codec", &Level::DEBUG));
    }

    #[test]
    fn the_s3_clients_retries_are_shown_when_asked_for() {
        let shown = |level: &str| {
            let targets = targets(&LogFilter(level.to_owned()));
            targets.would_enable("object_store::client::retry", &Level::INFO)
        };
        assert!(!shown("info"));
        assert!(!shown("trace"));
        assert!(shown("info,object_store=info"));
    }

    #[test]
    fn levels_of_single_modules_act() {
        let targets = targets(&LogFilter("warn,sluice_writer=debug".to_owned()));
        assert!(targets.would_enable("sluice_writer::volume", &Level::DEBUG));
        assert!(!targets.would_enable("sluice_gateway", &Level::INFO));
        assert!(targets.would_enable("sluice_gateway", &Level::WARN));
    }
}
