//! Notices of a cloud that it will take this machine away: polled from the instance's metadata.
//!
//! AWS: `spot/instance-action` (terminate, stop, hibernate, with the time) and `autoscaling/target-lifecycle-state`, by
//! a session token (IMDSv2). Alibaba Cloud: `instance/spot/termination-time`. A service that does not answer, or
//! says something else, is asked again: it says nothing about the machine.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use sluice_model::Clock;

/// How long an AWS session token is asked for, in seconds.
const TOKEN_SECONDS: &str = "21600";
const TOKEN_HEADER: &str = "X-aws-ec2-metadata-token";
/// The longest answer that is looked at; real ones have a hundred bytes.
const LONGEST_ANSWER: usize = 4096;

/// Whose metadata service it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Amazon Web Services.
    Aws,
    /// Alibaba Cloud.
    Alibaba,
}

impl Provider {
    /// Where the service is on every instance.
    pub fn endpoint(self) -> &'static str {
        match self {
            Self::Aws => "http://169.254.169.254",
            Self::Alibaba => "http://100.100.100.200",
        }
    }
}

/// What is asked, and how often.
#[derive(Clone, Debug)]
pub struct NoticeOptions {
    /// Whose service it is.
    pub provider: Provider,
    /// Its address, without a slash at its end.
    pub endpoint: String,
    /// Between two questions.
    pub every: Duration,
    /// How long an answer is waited for.
    pub timeout: Duration,
}

impl NoticeOptions {
    /// As the provider's documentation advises.
    pub fn of(provider: Provider) -> Self {
        Self {
            provider,
            endpoint: provider.endpoint().to_owned(),
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
        }
    }
}

/// The machine will be taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What was said, for people.
    pub what: String,
    /// When, as wall time in ms since the epoch, if that was said.
    pub at_ms: Option<i64>,
}

impl Notice {
    /// How long the machine stays; `unknown` if that was not said.
    pub fn left(&self, clock: &dyn Clock, unknown: Duration) -> Duration {
        match self.at_ms {
            None => unknown,
            Some(at) => {
                let left_ms = at.saturating_sub(clock.wall_ms()).max(0);
                Duration::from_millis(left_ms.unsigned_abs())
            }
        }
    }
}

/// Returns when there is a notice.
pub async fn notice(options: NoticeOptions) -> Notice {
    let client = Client::builder().timeout(options.timeout).no_proxy().build();
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "the cloud is not asked for notices");
            return std::future::pending().await;
        }
    };
    let service = Service { client, options };
    let mut token = None;
    let mut was_silent = false;
    loop {
        let answer = match service.options.provider {
            Provider::Aws => service.aws(&mut token).await,
            Provider::Alibaba => service.alibaba().await,
        };
        match answer {
            Ok(Some(notice)) => return notice,
            Ok(None) => was_silent = false,
            Err(error) if !was_silent => {
                was_silent = true;
                tracing::warn!(%error, "the metadata service does not say whether this machine stays");
            }
            Err(_) => {}
        }
        tokio::time::sleep(service.options.every).await;
    }
}

struct Service {
    client: Client,
    options: NoticeOptions,
}

impl Service {
    async fn aws(&self, token: &mut Option<Arc<str>>) -> Result<Option<Notice>, reqwest::Error> {
        let held = match token.clone() {
            Some(held) => held,
            None => {
                let put = self.client.put(self.url("/latest/api/token"));
                let put = put.header("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS);
                let new: Arc<str> = put.send().await?.error_for_status()?.text().await?.into();
                token.insert(new).clone()
            }
        };
        let mut found = None;
        for path in [
            "/latest/meta-data/spot/instance-action",
            "/latest/meta-data/autoscaling/target-lifecycle-state",
        ] {
            let get = self.client.get(self.url(path)).header(TOKEN_HEADER, &*held);
            let answer = get.send().await?;
            if answer.status() == StatusCode::UNAUTHORIZED {
                *token = None;
                return Ok(None);
            }
            let Some(said) = said(answer).await? else { continue };
            found = found.or_else(|| match path.ends_with("instance-action") {
                true => Some(Notice { at_ms: field(&said, "time").and_then(wall_ms), what: said }),
                false => (said.trim() == "Terminated").then(|| Notice {
                    what: "target-lifecycle-state Terminated".to_owned(),
                    at_ms: None,
                }),
            });
        }
        Ok(found)
    }

    async fn alibaba(&self) -> Result<Option<Notice>, reqwest::Error> {
        let get = self.client.get(self.url("/latest/meta-data/instance/spot/termination-time"));
        let said = said(get.send().await?).await?;
        Ok(said.map(|said| Notice { at_ms: wall_ms(said.trim()), what: said.trim().to_owned() }))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.options.endpoint)
    }
}

/// What an answer says; nothing if there is no such thing.
async fn said(mut answer: reqwest::Response) -> Result<Option<String>, reqwest::Error> {
    if answer.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    answer = answer.error_for_status()?;
    let mut text = Vec::new();
    while let Some(more) = answer.chunk().await? {
        if text.len() + more.len() > LONGEST_ANSWER {
            return Ok(None);
        }
        text.extend_from_slice(&more);
    }
    Ok(Some(String::from_utf8_lossy(&text).into_owned()).filter(|text| !text.trim().is_empty()))
}

/// The text of a field of a flat JSON object, as the service writes it.
fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{name}\""))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    rest.split_once('"').map(|(value, _)| value)
}

/// `2026-11-23T17:45:00Z` as ms since the epoch.
fn wall_ms(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, by: char| {
        let parts: Option<Vec<i64>> = text.split(by).map(|part| part.parse().ok()).collect();
        <[i64; 3]>::try_from(parts?).ok()
    };
    let whole = time.split_once('.').map_or(time, |(whole, _)| whole);
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(whole, ':')?);
    let in_bounds = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    if !in_bounds {
        return None;
    }
    // The civil calendar, in years that begin on 1 March, so that a leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each path with what is next for it, the last one again and again; keeps what was asked.
    async fn service(
        answers: Vec<(&'static str, Vec<(u16, &'static str)>)>,
    ) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        let mut answers: Vec<(&str, VecDeque<_>)> =
            answers.into_iter().map(|(path, all)| (path, all.into())).collect();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let (mut request, mut token) = (String::new(), String::new());
                stream.read_line(&mut request).await.unwrap();
                loop {
                    let mut header = String::new();
                    stream.read_line(&mut header).await.unwrap();
                    if header.trim().is_empty() {
                        break;
                    }
                    if let Some((name, value)) = header.split_once(':')
                        && name.eq_ignore_ascii_case(TOKEN_HEADER)
                    {
                        token = value.trim().to_owned();
                    }
                }
                let what = request.rsplit_once(' ').unwrap().0.to_owned();
                seen.lock().push(format!("{what} {token}").trim().to_owned());
                let known = answers.iter_mut().find(|(path, _)| what == *path);
                let (status, body) = match known {
                    Some((_, all)) if all.len() > 1 => all.pop_front().unwrap(),
                    Some((_, all)) => all[0],
                    None => (404, "not found"),
                };
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.get_mut().write_all(head.as_bytes()).await.unwrap();
            }
        });
        (endpoint, asked)
    }

    async fn ask(provider: Provider, endpoint: String) -> Notice {
        let options = NoticeOptions {
            endpoint,
            every: Duration::from_millis(10),
            ..NoticeOptions::of(provider)
        };
        tokio::time::timeout(Duration::from_secs(20), notice(options)).await.expect("a notice")
    }

    #[tokio::test]
    async fn aws_says_when_it_takes_the_machine_away() {
        let action = r#"{"action": "terminate", "time": "2026-11-23T17:45:00Z"}"#;
        let (endpoint, asked) = service(vec![
            ("PUT /latest/api/token", vec![(503, ""), (200, "first"), (200, "second")]),
            (
                "GET /latest/meta-data/spot/instance-action",
                vec![(404, ""), (500, ""), (401, ""), (200, action)],
            ),
        ])
        .await;
        let notice = ask(Provider::Aws, endpoint).await;
        assert_eq!((notice.at_ms, &*notice.what), (Some(1_795_455_900_000), action));
        let asked = asked.lock();
        let tokens = asked.iter().filter(|line| line.starts_with("PUT")).count();
        assert_eq!(tokens, 3, "{asked:?}");
        assert!(asked.contains(&"GET /latest/meta-data/spot/instance-action second".to_owned()));
    }

    #[tokio::test]
    async fn an_autoscaling_group_takes_it_away_too() {
        let state = "GET /latest/meta-data/autoscaling/target-lifecycle-state";
        let (endpoint, _) = service(vec![
            ("PUT /latest/api/token", vec![(200, "t")]),
            (state, vec![(200, "InService"), (200, "Terminated")]),
        ])
        .await;
        let notice = ask(Provider::Aws, endpoint).await;
        assert_eq!(notice.at_ms, None);
    }

    #[tokio::test]
    async fn alibaba_says_when() {
        let path = "GET /latest/meta-data/instance/spot/termination-time";
        let (endpoint, _) =
            service(vec![(path, vec![(404, ""), (200, "2026-11-23T17:45:00Z")])]).await;
        let notice = ask(Provider::Alibaba, endpoint).await;
        assert_eq!(notice.at_ms, Some(1_795_455_900_000));
    }

    #[test]
    fn times_are_read_or_refused() {
        // Checked with `date -u -d @SECONDS`.
        assert_eq!(wall_ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(wall_ms("2000-02-28T23:59:59Z"), Some(951_782_399_000));
        assert_eq!(wall_ms("2026-11-22T20:21:38.5Z"), Some(1_795_378_898_000));
        for bad in ["", "soon", "2026-13-01T00:00:00Z", "2026-11-22 20:21:38", "2026-11-22T20:21Z"]
        {
            assert_eq!(wall_ms(bad), None, "{bad}");
        }
    }
}
