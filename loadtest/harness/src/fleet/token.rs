//! What agents and coordinator both know, and nobody else.

use std::fmt;
use std::hint::black_box;
use std::path::Path;

/// The environment variable that may hold it.
const VARIABLE: &str = "SLUICE_LOADTEST_TOKEN";
/// Below this it could be guessed.
const LEAST_BYTES: usize = 16;
const MOST_BYTES: usize = 1024;

/// A shared secret. It is never shown.
#[derive(Clone)]
pub struct Token(String);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Nobody has given one.
    #[error("there is no token: write one into a file for --token-file, or into {VARIABLE}")]
    Missing,
    /// The file cannot be read.
    #[error("cannot read the token in {0}: {1}")]
    File(String, std::io::Error),
    /// It is too short or too long.
    #[error("the token must have {LEAST_BYTES} to {MOST_BYTES} bytes")]
    Length,
}

impl Token {
    /// The environment variable by which a token is given to a process.
    pub const VARIABLE: &str = VARIABLE;

    /// The token in this text, without the white space around it.
    ///
    /// # Errors
    /// When it is too short or too long.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if !(LEAST_BYTES..=MOST_BYTES).contains(&text.len()) {
            return Err(TokenError::Length);
        }
        Ok(Self(text.to_owned()))
    }

    /// A token that nobody knows yet.
    pub fn random(entropy: &dyn sluice_model::Entropy) -> Self {
        Self(entropy.random_16().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The token in a file, or else in [`Self::VARIABLE`].
    ///
    /// # Errors
    /// When neither gives one.
    pub fn find(file: Option<&Path>) -> Result<Self, TokenError> {
        let text = match file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| TokenError::File(path.display().to_string(), error))?,
            None => std::env::var(VARIABLE).map_err(|_| TokenError::Missing)?,
        };
        Self::new(&text)
    }

    /// The secret itself, for a message or the environment of a process.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }

    /// Whether somebody has given the same one. How long it takes says nothing but the length.
    pub(super) fn is(&self, given: &str) -> bool {
        let (own, given) = (self.0.as_bytes(), given.as_bytes());
        let differences = own.iter().zip(given).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        own.len() == given.len() && differences == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_no_other() {
        let token = Token::new(" 0123456789abcdef\n").expect("a token");
        assert!(token.is("0123456789abcdef"));
        for other in ["", "0123456789abcdeg", "1123456789abcdef", "0123456789abcde"] {
            assert!(!token.is(other), "{other}");
        }
        assert!(!token.is("0123456789abcdef0"));
        assert!(Token::new("0123456789abcde \n").is_err(), "too short");
        assert!(!format!("{token:?}").contains("0123"));
    }
}
