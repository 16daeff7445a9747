//! Subscriptions by regular expression (KIP-848), in RE2's syntax, against the tenant's topic names.
//!
//! RE2 and the `regex` crate share syntax and the promise that matching takes linear time; what RE2 has
//! in addition and clients use, `\Q...\E`, is translated. An expression must match the whole name.

use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};
use sluice_wire::Str;

/// Bytes of an expression.
const MAX_BYTES: usize = 4 << 10;
/// Bytes that a compiled expression, and its cache, may take.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// Why an expression cannot be used; for the client to read.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    compile(pattern).map(drop)
}

/// The names that the expression matches, in their order; none for an expression that is not valid.
pub(super) fn matching(pattern: &str, names: &[Str]) -> Vec<Str> {
    let Ok(regex) = compile(pattern) else { return Vec::new() };
    names.iter().filter(|name| regex.is_match(name)).cloned().collect()
}

fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    let translated = unquote(pattern);
    let build = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_COMPILED_BYTES)
            .build()
    };
    // By itself first: what is only valid inside of the group that is put around it is not valid.
    build(&translated).and_then(|_| build(&format!(r"\A(?:{translated})\z"))).map_err(|error| {
        match error {
            regex::Error::CompiledTooBig(_) => "it needs too much memory".to_owned(),
            // The last line says what is wrong, those before it show where.
            other => other.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        }
    })
}

/// Writes `\Q...\E`, text that stands for itself, in other words.
fn unquote(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        if let Some(quoted) = escape.strip_prefix(r"\Q") {
            let (literal, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            out.push_str(&regex::escape(literal));
            rest = after;
        } else {
            let mut chars = escape.chars();
            for c in chars.by_ref().take(2) {
                // Writing to a string does not fail.
                let _ = out.write_char(c);
            }
            rest = chars.as_str();
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(pattern: &str) -> Vec<String> {
        let names = ["orders", "orders-dlq", "a.b", "axb", "Orders", "x1"].map(Str::from_static);
        matching(pattern, &names).iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn an_expression_matches_whole_names() {
        assert_eq!(matched("orders"), ["orders"]);
        assert_eq!(matched("orders.*"), ["orders", "orders-dlq"]);
        assert_eq!(matched("order|orders"), ["orders"]);
        assert_eq!(matched("^orders$"), ["orders"]);
        assert_eq!(matched("a.b"), ["a.b", "axb"]);
        assert_eq!(matched(r"a\.b"), ["a.b"]);
        assert_eq!(matched(r"\Qa.b\E|x\d"), ["a.b", "x1"]);
        assert_eq!(matched(r"\Qa.b"), ["a.b"]);
        assert_eq!(matched(r"(?i)orders"), ["orders", "Orders"]);
        assert_eq!(matched(r"[[:alpha:]]\pN"), ["x1"]);
        assert!(matched("nothing").is_empty());
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for pattern in ["(", "a)(b", "[a", "*", r"(?=a)", r"(a)\1", "a{2,1}", "(?<", r"\"] {
            assert!(check(pattern).is_err(), "{pattern}");
            assert!(matched(pattern).is_empty(), "{pattern}");
        }
        assert!(check(&"a".repeat(MAX_BYTES + 1)).is_err());
        assert!(check("((a{100}){100}){100}").is_err(), "too big");
        let message = check("(").unwrap_err();
        assert!(!message.contains('\n') && message.contains("unclosed group"), "{message}");
    }
}
