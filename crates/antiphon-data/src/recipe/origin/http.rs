//! One attempt to fetch one file over HTTP.
//!
//! What has arrived is never asked for again: the request has a `Range`, and an `If-Range` where the server gave its
//! content a name before. A server that cannot do that sends everything, and the part begins anew.

use std::io::Read;
use std::time::{Duration, Instant};

use antiphon_core::Error;
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::{Agent, Body};

use super::part::{Part, Rest, Sender};
use crate::recipe::audience::{Audience, Progress};

/// How long to wait for servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub stall: Duration,
    /// Before each further attempt; as many attempts follow the first.
    pub pauses: Vec<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        let pauses = [1, 2, 4, 8].map(Duration::from_secs).into();
        Self { connect: Duration::from_secs(15), stall: Duration::from_secs(30), pauses }
    }
}

/// Why an attempt did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may succeed later.
    Passing(String),
    /// This server will not change its mind.
    Final(String),
    /// It is not the server's fault.
    Ours(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// What is fetched.
pub(super) struct Request<'a> {
    pub(super) url: &'a str,
    /// What it is called on the terminal.
    pub(super) name: &'a str,
    /// Its length in bytes, if it is known.
    pub(super) size: Option<u64>,
    /// Whether the whole will be held against a SHA-256 that is known already.
    pub(super) checked: bool,
}

const MOST_REDIRECTS: u32 = 5;
/// No transfer is longer, so that no server can fill a disk.
const MOST_BYTES: u64 = 16 << 30;

impl Request<'_> {
    /// Fetches what is missing of `part`.
    pub(super) fn fetch(
        &self,
        part: &mut Part,
        patience: &Patience,
        audience: &mut dyn Audience,
    ) -> Result<(), Failure> {
        let rest = part.rest(self.url, self.checked);
        let from = match &rest {
            Rest::Nothing => return Ok(()),
            Rest::All => {
                audience.line(&format!("fetching {}", self.url));
                0
            }
            Rest::From(from, _) => {
                audience.line(&format!("fetching {}, going on after {from} bytes", self.url));
                *from
            }
        };
        let response = self.send(&rest, patience)?;
        let total = self.accept(&response, part, from)?;
        let ended = self.receive(response.into_body(), part, total, patience, audience);
        audience.progress_ends();
        ended
    }

    fn send(&self, rest: &Rest, patience: &Patience) -> Result<Response<Body>, Failure> {
        let agent: Agent = Agent::config_builder()
            .user_agent(concat!("antiphon/", env!("CARGO_PKG_VERSION")))
            .https_only(self.url.starts_with("https://"))
            .http_status_as_error(false)
            .max_redirects(MOST_REDIRECTS)
            .max_redirects_will_error(true)
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_per_read(Some(patience.stall))
            .timeout_per_write(Some(patience.stall))
            .build()
            .into();
        let mut request = agent.get(self.url);
        if let Rest::From(from, validator) = rest {
            request = request.header(header::RANGE, format!("bytes={from}-"));
            if let Some(validator) = validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        request.call().map_err(|error| Failure::of(error, patience))
    }

    /// Judges the answer and makes the part ready. The length of the whole, if it is known.
    fn accept(&self, response: &Response<Body>, part: &mut Part, from: u64) -> Result<Option<u64>, Failure> {
        let (status, headers) = (response.status(), response.headers());
        let sender = |total| Sender { url: self.url.into(), validator: validator(headers), total };
        match status {
            StatusCode::OK => {
                let total = number(headers, header::CONTENT_LENGTH).or(self.size);
                self.check_size(total)?;
                part.begin(sender(total))?;
                Ok(total)
            }
            StatusCode::PARTIAL_CONTENT if from > 0 => match content_range(headers) {
                Some((first, total)) if first == from => {
                    let total = total.or(self.size);
                    self.check_size(total)?;
                    part.join(sender(total))?;
                    Ok(total)
                }
                _ => {
                    part.empty()?;
                    Err(Failure::Passing("the server sent another part than the one asked for".into()))
                }
            },
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
                part.empty()?;
                Err(Failure::Passing("the server cannot go on where it broke off".into()))
            }
            status => {
                let message = format!("the server answers {status}");
                let passes = status.is_server_error()
                    || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
                Err(if passes { Failure::Passing(message) } else { Failure::Final(message) })
            }
        }
    }

    fn check_size(&self, offered: Option<u64>) -> Result<(), Failure> {
        match (offered, self.size) {
            (Some(offered), Some(size)) if offered != size => {
                Err(Failure::Final(format!("the server offers {offered} bytes, but the recipe means {size}")))
            }
            _ => Ok(()),
        }
    }

    fn receive(
        &self,
        mut body: Body,
        part: &mut Part,
        total: Option<u64>,
        patience: &Patience,
        audience: &mut dyn Audience,
    ) -> Result<(), Failure> {
        let (began, before) = (Instant::now(), part.length());
        let mut reader = body.as_reader();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let so_far = |part: &Part| match total {
                Some(total) => format!("after {} of {total} bytes", part.length()),
                None => format!("after {} bytes", part.length()),
            };
            let read = reader.read(&mut buffer).map_err(|error| {
                let why = describe(ureq::Error::from(error), patience);
                Failure::Passing(format!("{}: {why}", so_far(part)))
            })?;
            if read == 0 {
                let short = total.is_some_and(|total| part.length() < total);
                return if short { Err(Failure::Passing(format!("it broke off {}", so_far(part)))) } else { Ok(()) };
            }
            part.append(&buffer[..read])?;
            if part.length() > total.unwrap_or(MOST_BYTES) {
                part.empty()?;
                return Err(Failure::Final("the server sends more than it should".into()));
            }
            let (done, elapsed) = (part.length(), began.elapsed());
            audience.progress(&Progress { name: self.name, done, before, total, elapsed });
        }
    }
}

impl Failure {
    fn of(error: ureq::Error, patience: &Patience) -> Self {
        use ureq::Error as E;
        let passes = matches!(&error, E::Io(_) | E::Timeout(_) | E::ConnectionFailed | E::Protocol(_));
        let passes = passes && !is_unknown_host(&error);
        let message = describe(error, patience);
        if passes { Self::Passing(message) } else { Self::Final(message) }
    }
}

/// Whether a server's name means nothing here. The system's resolver has no kind of error for that, only a text.
fn is_unknown_host(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound => true,
        ureq::Error::Io(error) => error.to_string().starts_with("failed to lookup address information"),
        _ => false,
    }
}

/// What went wrong, in the user's words.
fn describe(error: ureq::Error, patience: &Patience) -> String {
    use ureq::{Error as E, Timeout as T};
    // The body's errors come wrapped.
    let error = match error {
        E::Io(error) => match error.downcast::<E>() {
            Ok(inner) => inner,
            Err(error) => E::Io(error),
        },
        error => error,
    };
    match error {
        error if is_unknown_host(&error) => "there is no such server, or no network".into(),
        E::Timeout(T::Connect | T::Resolve) => format!("no connection within {:?}", patience.connect),
        E::Timeout(_) => format!("the server sent nothing for {:?}", patience.stall),
        E::TooManyRedirects => format!("it is redirected more than {MOST_REDIRECTS} times"),
        E::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => "the connection broke off".into(),
        E::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// A name of the content that changes with it: a strong `ETag`, otherwise `Last-Modified`.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_string);
    let strong = text(header::ETAG).filter(|tag| !tag.starts_with("W/"));
    strong.or_else(|| text(header::LAST_MODIFIED))
}

fn number(headers: &HeaderMap, name: header::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// First byte and length of the whole, of `bytes 100-199/200`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_means_nothing_is_not_tried_again() {
        let unknown = std::io::Error::other("failed to lookup address information: Name or service not known");
        for error in [ureq::Error::Io(unknown), ureq::Error::HostNotFound] {
            let Failure::Final(message) = Failure::of(error, &Patience::default()) else { panic!("not final") };
            assert_eq!(message, "there is no such server, or no network");
        }
        let refused = ureq::Error::Io(std::io::ErrorKind::ConnectionRefused.into());
        assert!(matches!(Failure::of(refused, &Patience::default()), Failure::Passing(m) if m == "connection refused"));
    }

    #[test]
    fn headers_are_read() {
        let headers = |pairs: &[(header::HeaderName, &str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
        };
        let range = |text| content_range(&headers(&[(header::CONTENT_RANGE, text)]));
        assert_eq!(range("bytes 5-11/12"), Some((5, Some(12))));
        assert_eq!(range("bytes 5-11/*"), Some((5, None)));
        assert_eq!(range("bytes */12"), None);
        let (weak, date) = ((header::ETAG, "W/\"a\""), (header::LAST_MODIFIED, "Sat, 01 Jan 2022 00:00:00 GMT"));
        assert_eq!(validator(&headers(&[weak.clone(), date.clone()])).as_deref(), Some(date.1));
        assert_eq!(validator(&headers(&[(header::ETAG, "\"a\""), date])).as_deref(), Some("\"a\""));
        assert_eq!(validator(&headers(&[weak])), None);
    }
}
