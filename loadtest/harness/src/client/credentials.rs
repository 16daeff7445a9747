//! Who a connection belongs to: SASL/PLAIN (RFC 4616). The network sees it as it is.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use sluice_wire::Str;
use sluice_wire::messages::sasl_authenticate_request::SaslAuthenticateRequest;
use sluice_wire::messages::sasl_handshake_request::SaslHandshakeRequest;

use super::{CallError, Connection};

/// A user name and a password. They are never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    username: Arc<str>,
    password: Arc<str>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// Authenticates a connection that has done nothing yet.
    pub(crate) async fn show(&self, connection: &Connection) -> Result<(), CallError> {
        let mechanism = Str::from_static("PLAIN");
        let answer = connection.call(&SaslHandshakeRequest { mechanism }).await?;
        if answer.error_code != 0 {
            return Err(CallError::refused("SASL with PLAIN", answer.error_code));
        }
        let message = format!("\0{}\0{}", self.username, self.password);
        let request = SaslAuthenticateRequest { auth_bytes: Bytes::from(message) };
        let answer = connection.call(&request).await?;
        match answer.error_code {
            0 => Ok(()),
            code => Err(CallError::refused("authenticating", code)),
        }
    }
}

/// A tenant that the server knows.
#[derive(Clone, Debug)]
pub struct Account {
    /// What reports call it.
    pub name: String,
    pub(crate) credentials: Credentials,
}

impl Account {
    /// Reads tenants: TOML, a table `[[tenant]]` with `name`, `username` and `password` for each.
    ///
    /// # Errors
    /// Words for the user, without anything of what is secret.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            tenant: Vec<One>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct One {
            name: String,
            username: String,
            password: String,
        }
        let file: File = toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| text[..span.start].lines().count());
            format!("tenants are [[tenant]] with name, username and password, all strings: see line {line}")
        })?;
        if file.tenant.is_empty() {
            return Err("there is no [[tenant]]".to_owned());
        }
        let accounts = file.tenant.into_iter().map(|One { name, username, password }| {
            if username.is_empty() || [&username, &password].iter().any(|text| text.contains('\0')) {
                return Err(format!("tenant \"{name}\": the user name must not be empty, and nothing may hold a zero byte"));
            }
            let credentials =
                Credentials { username: username.into(), password: password.into() };
            Ok(Self { name, credentials })
        });
        accounts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_read_and_secrets_never_shown() {
        let one = "[[tenant]]\nname = 'a'\nusername = 'u'\npassword = 'secret'\n";
        let accounts = Account::parse(&one.repeat(2)).expect("two");
        assert_eq!(accounts.len(), 2);
        assert!(!format!("{accounts:?}").contains("secret"));
        for text in [
            "tenant = []",
            "[[tenant]]\nname = 'a'\npassword = 'secret'\n",
            "[[tenant]]\nname = 'a'\nusername = ''\npassword = 'secret'\n",
            "[[tenant]]\nname = 'a'\nusername = 'u'\npassword = \"secret\\u0000\"\n",
            "[[tenant]]\nname = 'a'\nusername = 'u'\npassword = 'secret\n",
        ] {
            let wrong = Account::parse(text).expect_err(text);
            assert!(!wrong.contains("secret"), "{wrong}");
        }
    }
}
